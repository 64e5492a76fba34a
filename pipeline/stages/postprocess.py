"""postprocess: a model's answer becomes a checked result, or the job ends with a failure that says why.

Nothing here asks for another try: the answer is paid for, and looking at it again would not change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema.protocols import Validator

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Fail
from pipeline.core.event import Event
from pipeline.core.payloads import Citation, Completion, Result
from pipeline.core.stage import Context
from pipeline.stages.citations import cited_numbers, resolve
from pipeline.stages.kind import kind_of
from pipeline.stages.output import compile_schemas, read_output


@dataclass(frozen=True)
class Postprocess:
    """Checks answers as their type says: refused, truncated, empty, of the wrong form, without citations."""

    catalog: Catalog

    def __post_init__(self) -> None:
        """Fail at declaration: a malformed schema stops the start, not a record."""
        _ = self._validators

    @cached_property
    def _validators(self) -> Mapping[str, Validator]:
        return compile_schemas(self.catalog)

    async def __call__(self, event: Event[Completion], _ctx: Context) -> Sequence[Result]:
        """Return the result. Raises Fail: `refused`, `truncated`, `empty_answer`, `invalid_output` or `uncited`."""
        completion, kind = event.payload, kind_of(self.catalog, event.job.type)
        truncated = is_truncated(completion, kind)
        if is_refused(completion, kind):
            return [make_result(completion, (completion.refusal or completion.text).strip(), truncated=truncated)]
        answer = completion.text.strip()
        if not answer:
            raise Fail("the model gave an empty answer", code="empty_answer")
        data = self._data(event.job.type, answer, truncated=truncated)
        numbers = (*cited_numbers(answer), *listed_numbers(data))
        citations = resolve(numbers, completion.passages)
        if kind.require_citations and not citations:
            raise Fail("the answer cites none of the passages it was given", code="uncited")
        return [make_result(completion, answer, data, citations, truncated=truncated)]

    def _data(self, name: str, answer: str, *, truncated: bool) -> Any:
        validator = self._validators.get(name)
        if validator is None:
            return None
        try:
            return read_output(answer, validator)
        except Fail:
            if truncated:
                # Half a JSON text is never valid; the reason is that it was cut, not how it broke.
                raise Fail("the answer was cut at the type's token limit", code="truncated") from None
            raise


def is_refused(completion: Completion, kind: EventType) -> bool:
    """Whether the model or the provider's filter refused, and the type wants that delivered. Raises Fail where not."""
    if completion.refusal is None and completion.finish_reason != "content_filter":
        return False
    if kind.on_refusal == "fail":
        raise Fail(completion.refusal or "the provider's content filter stopped the answer", code="refused")
    return True


def is_truncated(completion: Completion, kind: EventType) -> bool:
    """Whether the answer was cut at its token limit, and the type wants that delivered. Raises Fail where not."""
    if completion.finish_reason != "length":
        return False
    if kind.on_truncated == "fail":
        raise Fail("the answer was cut at the type's token limit", code="truncated")
    return True


def listed_numbers(data: Any) -> tuple[int, ...]:
    """Return the passage numbers of a structured answer: those in its array `citations`, if it has one."""
    listed = data.get("citations") if isinstance(data, dict) else None
    return tuple(number for number in listed if type(number) is int) if isinstance(listed, list) else ()


def make_result(
    completion: Completion, answer: str, data: Any = None, citations: tuple[Citation, ...] = (), *, truncated: bool
) -> Result:
    """Put a result together; `data` None means that the type has no schema."""
    return Result(
        endpoint=completion.endpoint,
        metadata=completion.metadata,
        answer=answer,
        data=None if data is None else json.dumps(data, ensure_ascii=False),
        citations=citations,
        truncated=truncated,
        model=completion.model,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        cost_usd=completion.cost_usd,
        latency_ms=completion.latency_ms,
    )

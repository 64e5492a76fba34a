"""infer: the model is asked, once a try.

Retrieved text and question reach the model as delimited data (stages/template.py). What the answer is worth is for
`postprocess`; only an empty answer is judged here, because only here can the model be asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Fail, Retry
from pipeline.core.event import Event
from pipeline.core.limits import estimate_tokens
from pipeline.core.payloads import Completion, Passage, RetrievedContext
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel
from pipeline.core.stage import Context
from pipeline.stages.kind import kind_for
from pipeline.stages.template import Prompts, compile_templates

LONGEST_CALL = 590.0
"""Seconds for one call where the job's deadline leaves more; below the stage's own limit, which hides the cause."""
_MARGIN = 1.0  # seconds left for the answer to be written before the job's deadline
_MESSAGE_TOKENS = 16  # what the frame around the two messages costs


@dataclass(frozen=True)
class Infer:
    """Renders the prompt of a job's type and calls its model; `ctx.event_id` is the idempotency key."""

    catalog: Catalog
    model: ChatModel

    def __post_init__(self) -> None:
        """Fail at declaration: a template that does not compile stops the start, not a record."""
        _ = self._templates

    @cached_property
    def _templates(self) -> Mapping[str, Prompts]:
        return compile_templates(self.catalog)

    async def __call__(self, event: Event[RetrievedContext], ctx: Context) -> Sequence[Completion]:
        """Return the answer with its cost.

        Raises Fail with code `context_too_long`, Retry once for an empty answer where the type wants that, and what
        the model raises.
        """
        kind = kind_for(self.catalog, event.job)
        call, passages = self._call(event.payload, kind, ctx)
        answer = await self.model.complete(call)
        if kind.on_empty == "retry" and ctx.attempt == 1 and is_empty(answer):
            raise Retry("the model gave an empty answer", code="empty_answer")
        return [self._completion(event.payload, kind, passages, answer)]

    def _call(self, context: RetrievedContext, kind: EventType, ctx: Context) -> tuple[ChatCall, tuple[Passage, ...]]:
        system, user, passages = self._fit(context, kind)
        call = ChatCall(
            model=kind.model,
            system=system,
            user=user,
            max_output_tokens=kind.max_output_tokens,
            temperature=kind.temperature,
            request_id=ctx.event_id,
            timeout=time_left(ctx.deadline, ctx.now()),
            json_schema=kind.output_schema,
        )
        return call, passages

    def _fit(self, context: RetrievedContext, kind: EventType) -> tuple[str, str, tuple[Passage, ...]]:
        """Render with as many passages as the model's context window holds; the worst matches go first."""
        room = self.catalog.models[kind.model].context_tokens - kind.max_output_tokens - _MESSAGE_TOKENS
        prompts, passages = self._templates[kind.template], context.passages
        while True:
            system, user = prompts.render(context.input, passages)
            if estimate_tokens(system) + estimate_tokens(user) <= room:
                return system, user, passages
            if not passages:
                reason = f"the question does not fit into the context of the model {kind.model!r} beside its answer"
                raise Fail(reason, code="context_too_long")
            passages = passages[:-1]

    def _completion(
        self, context: RetrievedContext, kind: EventType, passages: tuple[Passage, ...], answer: ChatAnswer
    ) -> Completion:
        return Completion(
            endpoint=context.endpoint,
            metadata=context.metadata,
            input=context.input,
            passages=passages,
            model=answer.model,
            text=answer.text,
            refusal=answer.refusal,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            usage_estimated=answer.usage_estimated,
            request_id=answer.request_id,
            latency_ms=round(answer.latency * 1000),
            cost_usd=self.catalog.models[kind.model].cost(answer.prompt_tokens, answer.completion_tokens),
        )


def is_empty(answer: ChatAnswer) -> bool:
    """Whether the model simply said nothing. A refusal, a filter or a spent token limit would only repeat itself."""
    return answer.finish_reason not in {"content_filter", "length"} and not (answer.refusal or answer.text.strip())


def time_left(deadline: float | None, now: float) -> float:
    """Seconds that one call may take: up to a second before the deadline, but at least one."""
    if deadline is None:
        return LONGEST_CALL
    return max(1.0, min(LONGEST_CALL, deadline - now - _MARGIN))

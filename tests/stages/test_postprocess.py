"""Tests of pipeline/stages/postprocess.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.catalog import Catalog
from pipeline.core.errors import ConfigurationError, Fail, Reject
from pipeline.core.payloads import Citation, Completion, Result
from pipeline.stages.postprocess import Postprocess, listed_numbers
from tests.stages.made import catalog, completion, context, event

FIRST = Citation(number=1, source="handbook", document="shop", chunk=0, version=3, title="Hours")
SECOND = Citation(number=2, source="handbook", document="closing", chunk=2, version=3, title="Hours")
OBJECT = {"type": "object", "required": ["answer"]}


async def check(answered: Completion, known: Catalog | None = None) -> Result:
    """Return the one output."""
    (result,) = await Postprocess(known or catalog())(event(answered), context())
    return result


async def refuse(answered: Completion, known: Catalog | None = None) -> Fail:
    """Return why an answer fails."""
    with pytest.raises(Fail) as failed:
        await Postprocess(known or catalog())(event(answered), context())
    return failed.value


async def test_a_good_answer_becomes_a_result() -> None:
    """The answer with its citations and what it cost; endpoint and metadata travel along."""
    assert await check(completion(" At nine [1], to six [2]. \n")) == Result(
        answer="At nine [1], to six [2].",
        citations=(FIRST, SECOND),
        model="small-2024",
        finish_reason="stop",
        prompt_tokens=30,
        completion_tokens=5,
        cost_usd=0.00004,
        latency_ms=900,
        endpoint="crm",
        metadata={"ticket": "7"},
    )


async def test_invented_citations_are_dropped() -> None:
    """The text stays as the model wrote it; only numbers with a passage become citations."""
    result = await check(completion("At nine [1], see [7]."))
    assert (result.answer, result.citations) == ("At nine [1], see [7].", (FIRST,))


@pytest.mark.parametrize("text", ["I do not know.", "At nine [7].", "At nine [0]."])
async def test_a_type_may_require_citations(text: str) -> None:
    """An answer that cites none of its passages fails where the type says so, and only there."""
    assert (await refuse(completion(text), catalog(require_citations=True))).code == "uncited"
    assert (await check(completion(text))).citations == ()


@pytest.mark.parametrize("text", ["", " \n"])
async def test_an_empty_answer_fails(text: str) -> None:
    """There is nothing to deliver."""
    assert (await refuse(completion(text))).code == "empty_answer"


@pytest.mark.parametrize(
    "fields,reason",
    [
        ({"text": "", "refusal": "I cannot."}, "I cannot."),
        ({"text": "", "finish_reason": "content_filter"}, "the provider's content filter stopped the answer"),
    ],
)
async def test_a_refusal_fails_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    """By default a refusal is a failure, not an answer."""
    failed = await refuse(completion(**fields))
    assert (failed.code, failed.reason) == ("refused", reason)


async def test_a_refusal_may_be_delivered() -> None:
    """Where the type says so the refusal is the answer, without schema and citations."""
    known = catalog(on_refusal="deliver", output_schema=OBJECT, require_citations=True)
    assert (await check(completion("", refusal="I cannot."), known)).answer == "I cannot."
    filtered = await check(completion("At n", finish_reason="content_filter"), known)
    assert (filtered.answer, filtered.finish_reason, filtered.data) == ("At n", "content_filter", None)


async def test_a_truncated_answer_is_marked_or_fails() -> None:
    """The type decides; a delivered one says that it was cut."""
    cut = completion("At nine [1] and", finish_reason="length")
    assert (await check(cut)).truncated
    assert (await refuse(cut, catalog(on_truncated="fail"))).code == "truncated"


async def test_structured_answers_are_validated() -> None:
    """By the type's schema; the data is JSON text, and its list of citations counts like brackets in text."""
    text = '```json\n{"answer": "At nine.", "citations": [2, 9, true, "1"]}\n```'
    result = await check(completion(text), catalog(output_schema=OBJECT, require_citations=True))
    assert json.loads(result.data or "") == {"answer": "At nine.", "citations": [2, 9, True, "1"]}
    assert result.citations == (SECOND,)
    assert (await refuse(completion("At nine."), catalog(output_schema=OBJECT))).code == "invalid_output"


async def test_a_structured_answer_that_was_cut_says_so() -> None:
    """Half a JSON text is never valid: the reason is the limit, not the syntax."""
    cut = completion('{"answer": "At', finish_reason="length")
    assert (await refuse(cut, catalog(output_schema=OBJECT))).code == "truncated"
    whole = completion('{"answer": "At"}', finish_reason="length")
    assert (await check(whole, catalog(output_schema=OBJECT))).truncated


@pytest.mark.parametrize(
    "data,numbers",
    [
        ({"citations": [2, 1]}, (2, 1)),
        ({"citations": "1"}, ()),
        ({}, ()),
        ([1], ()),
        (None, ()),
        ({"citations": None}, ()),
    ],
)
def test_numbers_come_from_a_list_of_citations(data: object, numbers: tuple[int, ...]) -> None:
    """Any other shape lists none."""
    assert listed_numbers(data) == numbers


async def test_a_type_that_has_vanished_is_our_fault() -> None:
    """A process with another catalog must not blame the caller."""
    with pytest.raises(Reject):
        await Postprocess(catalog())(event(completion(), type="gone"), context())


def test_a_broken_schema_stops_the_start() -> None:
    """The stage cannot be made with a schema that does not compile."""
    with pytest.raises(ConfigurationError, match="output_schema"):
        Postprocess(catalog(output_schema={"type": "objekt"}))

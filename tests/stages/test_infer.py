"""Tests of pipeline/stages/infer.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.catalog import Catalog
from pipeline.core.errors import ConfigurationError, Defer, Fail, Outcome, Reject, Retry
from pipeline.core.payloads import Completion, RetrievedContext
from pipeline.core.ports import ChatAnswer, ChatCall
from pipeline.core.stage import Context
from pipeline.devkit.fakes import FakeModel, plain_answer
from pipeline.stages.infer import LONGEST_CALL, Infer, is_empty, time_left
from tests.stages.made import NOW, catalog, context, event, passage

QUESTION = RetrievedContext(input="When?", passages=(passage(),), endpoint="crm", metadata={"ticket": "7"})


async def infer(
    model: FakeModel, asked: RetrievedContext = QUESTION, known: Catalog | None = None, ctx: Context | None = None
) -> Completion:
    """Return the one output."""
    (answered,) = await Infer(known or catalog(), model)(event(asked), ctx or context())
    return answered


def answer(text: str = "", **changes: Any) -> ChatAnswer:
    """Make an answer of the fake's."""
    call = ChatCall("small", "", "", 1, 0.0, "event-1", 1.0)
    return replace(plain_answer(call, text), **changes)


async def test_an_answer_comes_with_what_it_cost() -> None:
    """Model, usage, finish reason, request id, latency and cost by the catalog's prices are recorded."""
    model = FakeModel()
    model.answers.append(
        answer("At nine [1].", model="small-2024", prompt_tokens=1_000, completion_tokens=500, latency=1.2345)
    )
    assert await infer(model) == Completion(
        input="When?",
        passages=(passage(),),
        endpoint="crm",
        metadata={"ticket": "7"},
        model="small-2024",
        text="At nine [1].",
        finish_reason="stop",
        prompt_tokens=1_000,
        completion_tokens=500,
        request_id="fake-event-1",
        latency_ms=1_234,
        cost_usd=0.002,
    )


async def test_the_call_is_the_types() -> None:
    """Model, limits and schema are the catalog's; the event's id is the idempotency key; the prompt is rendered."""
    model = FakeModel()
    known = catalog(temperature=0.5, output_schema={"type": "object"})
    await infer(model, known=known, ctx=context(deadline=NOW + 31))
    (call,) = model.calls
    assert (call.model, call.max_output_tokens, call.temperature, call.request_id, call.timeout, call.json_schema) == (
        "small",
        100,
        0.5,
        "event-1",
        30.0,
        {"type": "object"},
    )
    assert call.system == "Answer only from the passages."
    assert "The shop opens at nine." in call.user
    assert call.user.endswith("<question>\nWhen?\n</question>")


async def test_what_an_operator_has_set_is_obeyed() -> None:
    """A patched replay asks another model of the catalog, or for more tokens; the price is that model's."""
    model = FakeModel()
    known = catalog(
        {
            "models": {
                name: {"input_usd_per_million": price, "output_usd_per_million": price}
                for name, price in (("small", 1.0), ("large", 9.0))
            }
        }
    )
    patched = event(RetrievedContext(input="When?"), overrides='{"max_output_tokens": 7, "model": "large"}')
    (made,) = await Infer(known, model)(patched, context())
    assert [(call.model, call.max_output_tokens) for call in model.calls] == [("large", 7)]
    assert made.cost_usd == pytest.approx((made.prompt_tokens + made.completion_tokens) * 9e-6)


@pytest.mark.parametrize("overrides", ['{"model": "elsewhere"}', '{"max_output_tokens": 2000}', "{", '{"tenant": "x"}'])
async def test_what_the_catalog_does_not_allow_is_our_fault(overrides: str) -> None:
    """A model that is not there (any more), or no room for a prompt: nothing is paid, and it can be replayed."""
    model = FakeModel()
    with pytest.raises(Reject) as refused:
        await Infer(catalog(), model)(event(RetrievedContext(input="When?"), overrides=overrides), context())
    assert (refused.value.code, model.calls) == ("bad_patch", [])


async def test_the_worst_passages_go_when_the_window_is_full() -> None:
    """What does not fit into the model's context is dropped from the end; the completion keeps what was shown."""
    model = FakeModel()
    found = tuple(passage("word " * 200, chunk=number) for number in range(9))
    answered = await infer(model, RetrievedContext(input="When?", passages=found))
    assert 0 < len(answered.passages) < 9
    assert answered.passages == found[: len(answered.passages)]
    assert model.calls[0].user.count("<passage ") == len(answered.passages)


async def test_a_question_that_never_fits_fails() -> None:
    """Without any passage still too long: the caller hears so, and nothing is paid."""
    model = FakeModel()
    with pytest.raises(Fail) as failed:
        await infer(model, RetrievedContext(input="word " * 2_000))
    assert (failed.value.code, model.calls) == ("context_too_long", [])


async def test_an_empty_answer_is_asked_for_once_more() -> None:
    """Where the type says so the first empty answer is an attempt; the second one goes on, to fail as empty."""
    model = FakeModel(answer=lambda _call: "  ")
    with pytest.raises(Retry) as failed:
        await infer(model)
    assert failed.value.code == "empty_answer"
    assert (await infer(model, ctx=context(attempt=2))).text == "  "
    assert (await infer(model, known=catalog(on_empty="fail"))).text == "  "


@pytest.mark.parametrize(
    "changes,empty",
    [
        ({}, True),
        ({"text": "\n"}, True),
        ({"text": "x"}, False),
        ({"refusal": "No."}, False),
        ({"finish_reason": "content_filter"}, False),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "unknown"}, True),
    ],
)
def test_what_counts_as_empty(changes: dict[str, Any], empty: bool) -> None:
    """A refusal, a filter and a spent limit have their own outcome: asking again would not change them."""
    assert is_empty(answer(**changes)) is empty


@pytest.mark.parametrize("trouble", [Retry("500"), Defer("429", until=NOW), Reject("400"), Fail("too long")])
async def test_the_models_outcome_is_the_stages(trouble: Outcome) -> None:
    """What the model raises goes to the runtime as it is."""
    model = FakeModel()
    model.troubles.append(trouble)
    with pytest.raises(type(trouble)):
        await infer(model)


@pytest.mark.parametrize(
    "deadline,seconds",
    [(None, LONGEST_CALL), (NOW + 10_000, LONGEST_CALL), (NOW + 61, 60.0), (NOW + 1, 1.0), (NOW - 5, 1.0)],
)
def test_a_call_ends_before_the_jobs_deadline(deadline: float | None, seconds: float) -> None:
    """A call has what the job has left, less a second to write the answer, and never nothing."""
    assert time_left(deadline, NOW) == seconds


async def test_a_type_that_has_vanished_is_our_fault() -> None:
    """A process with another catalog must not blame the caller."""
    with pytest.raises(Reject):
        await Infer(catalog(), FakeModel())(event(QUESTION, type="gone"), context())


def test_a_broken_template_stops_the_start() -> None:
    """The stage cannot be made with a template that does not compile."""
    with pytest.raises(ConfigurationError, match=r"templates\.answer"):
        Infer(catalog({"templates": {"answer": {"system": "{{", "user": ""}}}), FakeModel())

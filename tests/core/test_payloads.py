"""Payloads are frozen, closed to unknown fields, and say what they change about their job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipeline.core.job import Job
from pipeline.core.payloads import Completion, Document, Passage, Payload, Prompt, Request
from tests.core.strategies import few, jobs


def _kinds(parent: type[Payload] = Payload) -> Iterator[type[Payload]]:
    for kind in parent.__subclasses__():
        if kind.__module__ == Payload.__module__:
            yield kind
            yield from _kinds(kind)


@pytest.mark.parametrize("kind", list(_kinds()))
def test_a_payload_takes_no_field_that_nobody_declared(kind: type[Payload]) -> None:
    """An unknown field is an error that names it, not something that vanishes on the way."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"nobody": 1})
    assert ("nobody", "extra_forbidden") in [(error["loc"][0], error["type"]) for error in caught.value.errors()]


@pytest.mark.parametrize("kind", list(_kinds()))
def test_a_payload_is_frozen(kind: type[Payload]) -> None:
    """No field of any payload can be set again."""
    payload = kind.model_construct()
    for name in kind.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(payload, name, "other")


def test_a_request_needs_its_type_and_its_input_only() -> None:
    """Everything else has a default that means "not said"."""
    request = Request(type="quick_answer", input="Why?")
    said = request.model_dump(exclude_defaults=True)
    assert {"type": "quick_answer", "input": "Why?"} == said
    assert ["type", "input"] == [name for name, field in Request.model_fields.items() if field.is_required()]


@pytest.mark.parametrize("lane", ["fast", "", "STANDARD"])
def test_a_lane_that_does_not_exist_is_refused(lane: str) -> None:
    """Only the three lanes are lanes."""
    with pytest.raises(ValidationError, match="lane"):
        Request.model_validate({"type": "t", "input": "i", "lane": lane})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_number_of_a_payload_is_a_number(score: float) -> None:
    """NaN and infinity, which JSON does not have, are refused where they come up and not in somebody's webhook."""
    fields = {"source": "s", "document": "d", "chunk": 0, "version": 1, "title": "", "text": "", "score": score}
    with pytest.raises(ValidationError, match="finite"):
        Passage.model_validate(fields)


@few
@given(jobs)
def test_a_prompt_places_its_job(job: Job) -> None:
    """Type, lane, deadline, catalog and conversation become the job's; everything else about it stays."""
    prompt = Prompt(type="t", input="i", input_tokens=1, lane="batch", deadline_ms=5, catalog="c1", conversation=None)
    placed = job.advanced(type="t", lane="batch", deadline_ms=5, catalog="c1", conversation="")
    assert placed == prompt.advance(job)


def test_a_completion_adds_its_cost() -> None:
    """What a call cost is added to what the job has cost before."""
    completion = Completion(
        input="i",
        model="m",
        text="t",
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        latency_ms=1,
        cost_usd=0.25,
    )
    assert Job("id", cost_usd=0.75) == completion.advance(Job("id", cost_usd=0.5))


@few
@given(jobs)
def test_other_payloads_change_nothing(job: Job) -> None:
    """A payload that says nothing about its job leaves it as it is."""
    document = Document(source="s", id="1", tenant="t", title="", body="", version=1)
    assert job == document.advance(job)

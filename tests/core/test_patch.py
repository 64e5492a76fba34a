"""Patches: what a replay changes of the work that it brings back, spelt in headers and applied to the event."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.errors import Reject
from pipeline.core.event import Event
from pipeline.core.headers import Origin
from pipeline.core.job import Job, child_id
from pipeline.core.patch import Change, Patch, change_of, changed, overridden, read_patch
from pipeline.core.payloads import JobPayload, Payload, Prompt, Request
from pipeline.core.record import Position
from pipeline.core.trace import root

REQUEST = Request(type="quick", input="When?", deadline_ms=500)
PROMPT = Prompt(type="quick", input="When?", input_tokens=2, lane="batch", deadline_ms=900, catalog="1")
patches = st.builds(
    Patch,
    type=st.none() | st.text(min_size=1, max_size=20),
    model=st.none() | st.text(min_size=1, max_size=20),
    max_output_tokens=st.none() | st.integers(1, 10_000),
)


def event(payload: Payload, **job: Any) -> Event[Any]:
    """Make the event of a payload."""
    fields: dict[str, Any] = {"id": "job", "type": "quick", "deadline_ms": 900, "accepted_at_ms": 400} | job
    place = Origin(Position("t", 0, 1), 1)
    return Event("id", Job(**fields), payload, b"k", root("job"), place, not_before=7.0)


def change(run: int = 0, deadline_ms: int | None = None, **fields: Any) -> Change:
    """Make a change."""
    return Change(run, Patch(**fields), deadline_ms)


@given(patches)
def test_a_patch_is_read_as_it_was_spelt(patch: Patch) -> None:
    """Whatever it sets, through a header's text and back."""
    spelt = h.quoted(patch.text())
    assert spelt.isascii()
    assert read_patch(h.unquoted(spelt)) == patch


@given(st.text())
def test_reading_raises_nothing_but_a_reject(text: str) -> None:
    """Whatever the text; and what our own code reads of a job then overrides nothing."""
    with suppress(Reject):
        assert read_patch(text) == overridden(text)
        return
    assert overridden(text) == Patch()


@pytest.mark.parametrize("text", ['{"tenant": "x"}', '{"max_output_tokens": 0}', '{"model": ""}', "[]", "null"])
def test_only_some_fields_can_be_set(text: str) -> None:
    """No tenant, no address, no text of the request: those would make it another job's."""
    with pytest.raises(Reject, match="a replay has set what cannot be set") as unfit:
        read_patch(text)
    assert unfit.value.code == "bad_patch"


def test_a_copy_that_is_no_replay_changes_nothing() -> None:
    """Nor does a replay that asks for no change, nor junk where a number belongs."""
    assert change_of({}) is None
    assert change_of({h.REPLAY_ID: "r", h.REPLAY_LETTER: "l", h.REPLAY_COUNT: "3"}) is None
    assert change_of({h.REPLAY_RUN: "x", h.REPLAY_DEADLINE: "soon"}) is None


def test_headers_say_what_is_changed() -> None:
    """Run, fields and deadline, each from its own header."""
    told = {h.REPLAY_RUN: "2", h.REPLAY_PATCH: '{"model":"large"}', h.REPLAY_DEADLINE: "1000"}
    assert change_of(told) == Change(2, Patch(model="large"), 1000)


def test_a_raised_run_is_another_event_of_the_same_job() -> None:
    """So its outputs and its webhook have ids of their own, each time the same ones."""
    raised = changed(event(PROMPT), change(run=2))
    assert (raised.job.id, raised.job.run) == ("job", 2)
    assert raised.id == child_id("id", "run", 0, 2) != "id"
    assert changed(event(PROMPT), change(run=2)) == raised
    assert changed(event(PROMPT, run=3), change(run=2)).id == "id"


def test_a_type_is_set_in_the_job_and_in_the_payload_that_has_one() -> None:
    """`preprocess` reads it in the request, all others in the job."""
    for payload in (REQUEST, PROMPT):
        patched = changed(event(payload), change(type="deep"))
        assert (patched.job.type, patched.payload.type) == ("deep", "deep")
    assert changed(event(JobPayload()), change(type="deep")).job.type == "deep"


def test_model_and_budget_are_overridden_for_the_whole_job() -> None:
    """They travel on with it to the stage that asks the model; a later patch sets more and keeps the rest."""
    first = changed(event(PROMPT), change(model="large"))
    second = changed(first, change(max_output_tokens=9))
    assert overridden(second.job.overrides) == Patch(model="large", max_output_tokens=9)
    assert dict(h.job_headers(second.job))[h.OVERRIDES] == second.job.overrides.encode()
    read = h.texts(h.job_headers(second.job))
    assert h.read_job(read, "job").overrides == second.job.overrides


def test_an_extended_deadline_holds_in_place_of_all_others() -> None:
    """A request's own counts from acceptance, which is when it was brought back; a prompt's is a time."""
    assert changed(event(PROMPT), change(deadline_ms=5_000)).payload.deadline_ms == 5_000
    asked = changed(event(REQUEST), change(deadline_ms=5_000))
    assert (asked.job.deadline_ms, asked.job.accepted_at_ms, asked.payload.deadline_ms) == (5_000, 7_000, None)
    assert changed(event(PROMPT), change(deadline_ms=5_000)).job.accepted_at_ms == 400

"""Stories from records made by hand: their order, what repeats, what it cost, and that junk never breaks them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.control import ControlState
from pipeline.core.payloads import Completion, Control, Delivery, Failure, JobPayload, Payload, Request
from pipeline.core.record import Commit, Headers, Partition, Record
from pipeline.ops.explain_facts import Fact, event_of, fact_of, plainly
from pipeline.ops.explain_line import Group
from pipeline.ops.explain_people import Note
from pipeline.ops.explain_story import tell
from pipeline.ops.explain_text import lines, plain
from pipeline.ops.explain_waits import Standing, waits
from pipeline.ops.tail import Wanted, line_of
from tests.core.strategies import NOW, hostile_headers
from tests.examples import at_most
from tests.ops.explain_world import LAYOUT

JOB = "job-1"
COMPLETION = Completion(
    input="?",
    model="m",
    text="!",
    finish_reason="stop",
    prompt_tokens=10,
    completion_tokens=2,
    latency_ms=5,
    cost_usd=0.25,
    request_id="r",
)
PAYLOADS: tuple[Payload, ...] = (
    JobPayload(),
    Request(type="quick", input="hello"),
    COMPLETION,
    Failure(stage="work", code="late", reason="too late", failed_at_ms=1),
    Delivery(webhook_id="w", kind="job.completed", outcome="failed", finished_at_ms=1, endpoint="https://a.b/secret"),
)


def fact(
    topic: str, offset: int = 0, *, at: float = NOW, payload: Payload | None = None, partition: int = 0, **told: str
) -> Fact:
    """Make the fact of a record; `told` are headers, underscores for dashes."""
    names = {"id": h.CE_ID, "job": h.CE_SUBJECT, "of": h.SOURCE, "parent": h.PARENT, "cost": h.COST, "run": h.RUN}
    known = {"job": JOB, "id": f"{topic}-{offset}"} | told
    headers = tuple(
        (names.get(name, f"pipeline-{name.replace('_', '-')}"), text.encode()) for name, text in known.items()
    )
    return read(Record(f"t.{topic}", partition, offset, b"k", b"{}", headers, int(at * 1000)), payload)


def read(record: Record, payload: Payload | None = None) -> Fact:
    """Make the fact of a record."""
    place = LAYOUT.places[record.topic]
    return fact_of(record, place, event_of(record, place, LAYOUT, payload, NOW), LAYOUT)


STANDING = Standing(LAYOUT, NOW)


def test_nothing_comes_before_what_it_was_made_of() -> None:
    """Clocks of machines differ: an output whose writer's clock is behind still follows its cause."""
    made = fact("deliveries", at=NOW - 60, of="t.in/0/0")
    first = fact("in", at=NOW)
    story = tell(JOB, [made, first], STANDING)
    assert [one.where for one in story.moments] == ["in:0@0", "deliveries:0@0"]
    assert [one.after_ms for one in story.moments] == [0, 0]


def test_records_that_make_a_circle_of_causes_come_to_an_end() -> None:
    """Headers may say anything, also that each of two records came of the other."""
    story = tell(JOB, [fact("in", 0, of="t.in/0/1"), fact("in", 1, of="t.in/0/0")], STANDING)
    assert len(story.moments) == 2


def test_a_call_is_paid_once_however_often_it_is_told() -> None:
    """The same answer written twice cost once; where the calls are not kept, the headers know what was paid."""
    calls = [fact("deliveries", number, payload=COMPLETION, id=name) for number, name in enumerate("aab")]
    assert tell(JOB, calls, STANDING).about["cost_usd"] == 0.5
    assert tell(JOB, [fact("in", cost="0.75")], STANDING).about["cost_usd"] == 0.75


def test_a_status_without_any_record_is_unknown() -> None:
    """There is nothing to be said."""
    assert tell(JOB, [], STANDING).status == "unknown"


@pytest.mark.parametrize(
    "outcome, kind, status",
    [
        ("delivered", "job.completed", "delivered"),
        ("undeliverable", "job.completed", "undeliverable"),
        ("delivered", "job.failed", "failed"),
    ],
)
def test_the_last_delivery_is_how_a_job_ended(outcome: str, kind: str, status: str) -> None:
    """An attempt that failed before does not count any more; and to hear of a failure makes no success of it."""
    base = Delivery(webhook_id="w", kind="job.completed", outcome="failed", finished_at_ms=1)
    tried = fact("deliveries", 0, payload=base)
    ended = fact("deliveries", 1, at=NOW + 1, payload=base.model_copy(update={"outcome": outcome, "kind": kind}))
    assert tell(JOB, [ended, tried], STANDING).status == status


def test_what_is_committed_is_not_waited_for_nor_is_what_has_an_outcome() -> None:
    """An outcome is written a moment before the commit; the map in the commit tells what is settled beyond it."""
    group = Group({Partition("t.in", 0): Commit(1)}, {})
    standing = replace(STANDING, groups={"work": group})
    assert [one.where for one in waits([fact("in", 0), fact("in", 1)], standing)] == ["in:0@1"]
    done = fact("deliveries", 0, parent="in-1", of="t.in/0/1")
    assert waits([fact("in", 1), done], standing) == []
    failed = Delivery(webhook_id="w", kind="job.completed", outcome="failed", finished_at_ms=1)
    tried = fact("deliveries", 0, parent="in-1", of="t.in/0/1", payload=failed)
    assert len(waits([fact("in", 1), tried], standing)) == 1


def test_the_deadline_and_the_pauses_that_hold_are_told() -> None:
    """A job whose deadline passed while it waited ends when it is looked at."""
    pause = Control(state="paused", at_ms=1_000)
    standing = replace(STANDING, groups={"work": Group(members=1)}, control=ControlState({"pause/all": pause}))
    (wait,) = waits([fact("in", deadline=str(int(NOW * 1000) - 1))], standing)
    assert wait.why[0].startswith("its deadline passed at 20")
    assert wait.why[1] == "paused since 1970-01-01 00:00:01.000Z"
    (wait,) = waits([fact("in")], replace(standing, control=ControlState()))
    assert wait.why == ("it is next, or handled at this moment",)


def test_an_endpoint_in_trouble_is_told_of_what_waits_for_it() -> None:
    """The outcome's own endpoint, or the one of its type; of a stage that posts nothing it is not told."""
    entry = Control(state="disabled", endpoint="crm", at_ms=1_000, reason="410")
    groups = {"tell": Group(members=1), "work": Group(members=1)}
    control = ControlState(endpoints={"crm": entry})
    standing = replace(STANDING, groups=groups, control=control, endpoint_of=lambda _: "crm")
    failure = Failure(stage="work", code="late", reason="too late", failed_at_ms=1)
    (wait,) = waits([fact("failures", payload=failure)], standing)
    assert wait.why == ("endpoint crm is disabled since 1970-01-01 00:00:01.000Z (410)",)
    (wait,) = waits([fact("in")], standing)
    assert wait.why == ("it is next, or handled at this moment",)
    other = failure.model_copy(update={"endpoint": "other"})
    assert len(waits([fact("failures", payload=other)], standing)[0].why) == 1


def test_texts_of_people_and_the_paths_of_addresses_are_not_told() -> None:
    """A story shows sizes of what people wrote, and of an address the host alone: its path may be a secret."""
    assert plainly(Request(type="quick", input="hello", metadata={"a": "b"})) == {
        "type": "quick",
        "input_characters": 5,
        "metadata": 1,
    }
    told = plainly(JobPayload(endpoint="https://user:secret@a.b/path?token=1"))
    assert told == {"endpoint": "https://a.b/..."}
    assert plainly(JobPayload(endpoint="https://[")) == {"endpoint": "an address"}


def test_nothing_in_a_story_steers_a_terminal() -> None:
    """What others wrote into a header may hold escape sequences."""
    dead = fact("work.dlq", dead_reason="%1B[2J", dead_stage="work", dead_code="bad")
    story = tell(JOB, [dead], STANDING, [Note(1, "x\x1b", "\x07", letter=dead.letter)])
    assert all(line.isprintable() for line in lines(story))
    assert line_of(dead, LAYOUT).text.isprintable()


places = st.sampled_from(sorted(LAYOUT.places))
numbers = st.integers(0, 3)


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    """Draw a record of any topic with hostile headers, in which ids and places meet now and then."""
    somewhere = st.builds("{}/{}/{}/{}".format, places, numbers, numbers, numbers).map(str.encode)
    some_id = st.sampled_from([b"a", b"b", b"c"])
    meeting = st.tuples(st.sampled_from([h.ORIGINAL, h.SOURCE, h.SETTLES]), somewhere) | st.tuples(
        st.sampled_from([h.CE_ID, h.CE_SUBJECT, h.PARENT, h.REPLAY_LETTER, h.REPLAY_ID]), some_id
    )
    headers: Headers = tuple(draw(st.lists(meeting, max_size=4))) + draw(hostile_headers)
    value = draw(st.none() | st.binary(max_size=9))
    stamp = draw(st.just(-1) | st.integers(0, 2**53))
    record = Record(draw(places), draw(numbers), draw(numbers), None, value, headers, stamp)
    return read(record, draw(st.none() | st.sampled_from(PAYLOADS)))


@settings(max_examples=at_most(12))
@given(
    st.lists(facts(), max_size=4),
    st.dictionaries(
        st.builds(Partition, places, numbers), st.builds(Commit, numbers, st.sampled_from(["", "lep1:r"])), max_size=2
    ),
    st.sampled_from([0.0, NOW, 2.0**53 / 1000]),
)
def test_a_story_is_told_of_whatever_there_is(known: list[Fact], commits: dict[Partition, Commit], now: float) -> None:
    """Whatever the records say, a story and lines come of them, as text and as JSON."""
    group = Group(commits, {}, 0)
    notes = [Note(2**60, "taken back", "", letter=one.letter) for one in known if one.letter]
    story = tell(JOB, known, Standing(LAYOUT, now, dict.fromkeys(LAYOUT.stages, group)), notes)
    assert len(story.moments) == len({one.position for one in known}) + len(notes)
    assert all(line.isprintable() for line in lines(story))
    json.dumps(plain(story))
    for one in known:
        line = line_of(one, LAYOUT)
        json.dumps(line.plain)
        Wanted(jobs=["a"], types=["x"], tenants=["y"], stages=["work"]).matches(one)

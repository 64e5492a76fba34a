"""What goes back in a replay, and as what: pure decisions, whatever the letters hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.answers import copy_word
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.headers import Origin, Tries
from pipeline.core.letter import read_head
from pipeline.core.letter_state import OPEN, STATES, LetterState, State
from pipeline.core.patch import Patch
from pipeline.core.payloads import Document
from pipeline.core.record import Headers, Position, Record
from pipeline.core.replay import (
    MAX_REPLAYS,
    NEVER,
    REFUSALS,
    Case,
    Marks,
    Rules,
    Seen,
    Target,
    closed,
    copy,
    former,
    reaches,
    refusal,
    target,
)
from pipeline.topology import STAGES
from tests.core.strategies import NOW, hostile_headers
from tests.examples import at_most

KNOWN = {one.name: one for one in STAGES}
BACK = Target("infer", "p.infer.retry.10s", by_key=False)
GRAVE = Grave("infer", "p.infer", "model_500", "Retry", "it is down", "0.1.0", failed_at=NOW)
SOURCE = Record("p.contexts.standard", 3, 42, b"k", b"v", (("mine", b"1"), ("mine", None)), 1_700_000_000_000)
ORIGIN = Origin(SOURCE.position, SOURCE.timestamp_ms)
MARKS = Marks("r1", "letter", 2, place=Position("p.infer.dlq", 3, 9))


def dead(*more: tuple[str, bytes | None]) -> Record:
    """A dead letter of `infer`."""
    headers = dead_headers(SOURCE, ORIGIN, Tries(3, 1, 2), GRAVE)
    return Record("p.infer.dlq", 3, 9, b"k", b"v", (*headers, *more), 1_800_000_000_500)


def case(**changes: object) -> Case:
    """A letter that may go."""
    told = {"head": read_head(dead()), "state": OPEN, "stage": KNOWN["infer"], "seen": Seen(), "partitions": 6}
    return Case(**{**told, **changes})  # type: ignore[arg-type]  # each is of its field's type


def test_what_the_sender_wrote_stays() -> None:
    """Its headers in their order, with duplicates and nulls; of the dead letter's own only what leads back."""
    made = copy(dead(("x-original-topic", b"t"), (h.REPLAY_ID, b"r0"), (h.SETTLES, b"s")), ORIGIN, BACK, MARKS, 1_234)
    assert (BACK.topic, b"k", b"v", 3) == (made.topic, made.key, made.value, made.partition)
    assert (("mine", b"1"), ("mine", None)) == made.headers[:2]
    assert dict(made.headers[2:]) == {
        h.ATTEMPTS: b"0",
        h.DEFERRALS: b"0",
        h.TIMEOUTS: b"0",
        h.ORIGINAL: b"p.contexts.standard/3/42/1700000000000",
        h.FIRST_FAILURE: b"%d" % int(NOW * 1000),
        h.NOT_BEFORE: b"1234",
        h.REPLAY_ID: b"r1",
        h.REPLAY_LETTER: b"letter",
        h.REPLAY_COUNT: b"2",
        h.SETTLES: b"p.infer.dlq/3/9",
    }


def test_who_follows_answers_does_not_take_it_for_one() -> None:
    """It settles the dead letter and not the original, which a copy in a tier would settle."""
    made = copy(dead(), ORIGIN, BACK, MARKS, 1)
    word = copy_word(Record(made.topic, 3, 1, made.key, made.value, made.headers, 2))
    assert (Position("p.infer.dlq", 3, 9), None) == (word.settles, word.event)


def test_what_a_replay_changes_is_spelt() -> None:
    """The run, the patch as JSON that fits a header, and the deadline; an earlier replay's are read again."""
    marks = Marks("r1", "letter", 1, 3, Patch(type="größer").text(), 9_999)
    made = copy(dead(), ORIGIN, BACK, marks, 1)
    again = Record("p.infer.dlq", 3, 9, None, None, made.headers, 1)
    assert (3, Patch(type="größer"), 9_999) == former(again)
    assert NEVER == former(dead())


def test_on_an_original_nothing_of_ours_is_believed() -> None:
    """A record of a source topic is no copy: its bookkeeping is somebody's forgery, and so is a former replay."""
    forged: Headers = ((h.FIRST_FAILURE, b"5"), (h.REPLAY_RUN, b"9"), (h.ATTEMPTS, b"7"), ("mine", b"1"))
    record = Record("p.requests", 0, 1, b"k", b"v", forged, 1)
    made = copy(record, Origin(record.position, 1), Target("preprocess", "t", by_key=True), MARKS, 1_234)
    told = dict(made.headers)
    assert (b"1234", b"0", b"1") == (told[h.FIRST_FAILURE], told[h.ATTEMPTS], told["mine"])
    assert h.REPLAY_RUN not in told
    assert made.partition is None


@settings(max_examples=at_most(20))
@given(hostile_headers, st.integers(1, 2**53))
def test_copies_of_copies_do_not_grow(headers: Headers, now_ms: int) -> None:
    """Whatever the headers are, a copy is made, and a copy of it has no more of them."""
    record = Record("p.infer.dlq", 3, 9, None, None, headers, 1)
    once = copy(record, ORIGIN, BACK, MARKS, now_ms)
    twice = copy(Record("p.infer.dlq", 3, 9, None, None, once.headers, 1), ORIGIN, BACK, MARKS, now_ms)
    assert len(once.headers) == len(twice.headers)


def test_it_goes_to_the_first_tier() -> None:
    """Of the stage's own tiers; by key where the stage shares its work out by key."""
    assert Target("infer", "p.infer.retry.10s", by_key=False) == target(KNOWN["infer"], "p")
    assert Target("notify", "p.notify.retry.5s", by_key=False) == target(KNOWN["notify"], "p")
    assert target(KNOWN["index"], "p").by_key


def test_what_leads_to_what() -> None:
    """Over any number of stages, and never backwards."""
    stages = list(KNOWN.values())
    assert reaches(stages, KNOWN["preprocess"], KNOWN["notify"])
    assert reaches(stages, KNOWN["infer"], KNOWN["infer"])
    assert not reaches(stages, KNOWN["infer"], KNOWN["retrieve"])
    assert not reaches(stages, KNOWN["preprocess"], KNOWN["index"])


@pytest.mark.parametrize(
    "changes, rules, word",
    [
        ({}, Rules("r1"), ""),
        ({"state": LetterState("replayed", replay="r1")}, Rules("r1", again=True), "own"),
        ({"state": LetterState("replayed", replay="r0")}, Rules("r1"), "replayed"),
        ({"state": LetterState("replayed", "", "r0", MAX_REPLAYS)}, Rules("r1", again=True), "max_replays"),
        ({"stage": None}, Rules("r1"), "stage"),
        ({"stage": KNOWN["notify"]}, Rules("r1"), "not_read"),
        ({"stage": KNOWN["notify"], "sources": {"p.contexts.standard"}}, Rules("r1"), ""),
        ({"follows": False}, Rules("r1", source="notify"), "later"),
        ({"partitions": 0}, Rules("r1"), "topic"),
        ({"partitions": 3}, Rules("r1"), "partition"),
        ({"partitions": 3}, Rules("r1", source="retrieve"), "no_job"),
        ({"partitions": 3, "seen": Seen(job="j")}, Rules("r1", source="retrieve"), ""),
        ({"before": (read_head(dead()).fingerprint, int(NOW * 1000) - 1)}, Rules("r1"), "loop"),
        ({"before": (read_head(dead()).fingerprint, 5)}, Rules("r1"), ""),
        ({"before": ("other", int(NOW * 1000))}, Rules("r1"), ""),
        ({"seen": Seen(deadline_ms=5)}, Rules("r1"), "deadline"),
        ({"seen": Seen(deadline_ms=5), "deadline_ms": 2**52}, Rules("r1"), ""),
        ({"seen": Seen(deadline_ms=5)}, Rules("r1", extend=5.0), ""),
        ({"seen": Seen(why="junk")}, Rules("r1"), "undecodable"),
        ({"seen": Seen(why="junk")}, Rules("r1", undecodable=True), ""),
        ({"seen": Seen(job="j")}, Rules("r1", patch=Patch(model="m")), ""),
    ],
)
def test_why_a_letter_stays(changes: dict[str, object], rules: Rules, word: str) -> None:
    """By the first reason that there is, of which each has a sentence."""
    assert word == refusal(case(**changes), rules, NOW)
    assert not word or REFUSALS[word]


def test_what_is_no_job_has_nothing_to_be_set() -> None:
    """Even where something tells a job's id."""
    document = Document(source="s", id="1", tenant="t", title="", body="", version=1)
    assert refusal(case(seen=Seen(document, "j")), Rules("r1", patch=Patch(model="m")), NOW) == "unpatchable"


@given(st.sampled_from(STATES), st.booleans())
def test_states_that_are_closed(state: State, again: bool) -> None:
    """A letter that is done with goes nowhere; whatever is asked for, every answer has its sentence."""
    word = closed(LetterState(state, replay="r0"), Rules("r1", again=again))
    assert word in {"", *REFUSALS}
    assert (not word) == (state in {"open", "assigned"} or (state == "replayed" and again))


@settings(max_examples=at_most(20))
@given(hostile_headers, st.sampled_from([None, *STAGES]), st.booleans())
def test_no_letter_stops_a_plan(headers: Headers, stage: object, again: bool) -> None:
    """Whatever its headers are, there is an answer."""
    head = read_head(Record("p.infer.dlq", 0, 1, None, None, headers, 5))
    assert refusal(case(head=head, stage=stage), Rules("r1", again=again), NOW) in {"", *REFUSALS}


def test_where_a_letter_of_no_place_stands() -> None:
    """It cannot be told what it is."""
    bare = tuple(one for one in dead().headers if one[0] != h.ORIGINAL)
    head = read_head(Record("p.infer.dlq", 3, 9, None, b"v", bare, 1))
    assert refusal(case(head=head), Rules("r1"), NOW) == "no_position"
    assert head.position == Position("p.infer.dlq", 3, 9)

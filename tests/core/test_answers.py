"""What a record on a followed topic says, by its headers."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.answers import Word, copy_word, dead_word, failure_word, output_word
from pipeline.core.job import child_id
from pipeline.core.record import Position, Record

AT = Position("p.in", 3, 7)


def record(**headers: str) -> Record:
    """A record whose headers are named by what they are called in `core.headers`."""
    return Record("t", 0, 0, None, b"x", tuple((getattr(h, name), text.encode()) for name, text in headers.items()))


def test_an_output_answers_its_parent() -> None:
    """It settles the record it was made from and answers that event, in that run, wherever it stands."""
    told = record(SETTLES="p.in/3/7", PARENT="e", RUN="2", OUTPUT="1/3")
    assert output_word(told) == Word(AT, ("e", 2), 1, 3)
    assert output_word(record(SOURCE="p.in/3/7", PARENT="e")) == Word(AT, ("e", 0), 0, 1)
    assert output_word(record(SETTLES="p.in/3/7/-1", PARENT="e")) == Word(AT, ("e", 0), 0, 1, -1)
    assert output_word(record(SETTLES="p.in/3/7/99", OUTPUT="9/0")) == Word(AT, None, 0, 1, 99)
    assert output_word(record(OUTPUT=f"{'9' * 400}/{'9' * 400}")) == Word(None, None, 999_999, 1_000_000)


@pytest.mark.parametrize("text", ["", "p.in/3", "p.in/3/-1", "a b/1/2", "p.in/3/7/9/9", "p.in/3/7/", "p.in/3/7/x"])
def test_junk_says_nothing(text: str) -> None:
    """What does not read as a position, a parent or a count is passed over."""
    assert output_word(record(SETTLES=text or " ", OUTPUT="x/y")) == Word(None)
    assert copy_word(record(ORIGINAL=text)).settles is None


def test_a_failure_is_an_answer_of_its_own_stage_only() -> None:
    """Another stage's is none. That of a dead letter, which a person may bring back, is one half of it."""
    mine, dead = child_id("e", "infer.failure", 0, 0), child_id("e", "infer.dead", 0, 0)
    assert failure_word(record(CE_ID=mine, PARENT="e", SETTLES="p.in/3/7"), "infer") == Word(AT, ("e", 0))
    assert failure_word(record(CE_ID=mine, PARENT="e", SETTLES="p.in/3/7"), "other") is None
    assert failure_word(record(CE_ID=dead, PARENT="e", SETTLES="p.in/3/7"), "infer") == Word(AT, None, 1, 2)
    assert failure_word(record(CE_ID=dead, PARENT="e", SETTLES="p.in/3/7"), "other") is None
    assert dead_word(record(SETTLES="p.in/3/7")) == Word(AT, None, 0, 2)
    assert failure_word(record(PARENT="e"), "infer") is None
    assert failure_word(record(CE_ID=mine), "infer") is None


def test_a_copy_settles_what_it_was_copied_from() -> None:
    """And answers nobody: its event is still open. A copy of before the header tells where it first stood."""
    assert copy_word(record(SETTLES="p.in/3/7", ORIGINAL="p.in/3/1/-1", CE_ID="e")) == Word(AT)
    assert copy_word(record(ORIGINAL="p.in/3/7/-1")) == Word(AT, stamp=-1)

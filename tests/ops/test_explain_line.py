"""The lines that groups stand in, the layout of the topics, and words for times."""

from __future__ import annotations

import pytest

from pipeline.core.offset_map import Progress, spell
from pipeline.core.record import Commit, Partition, Position
from pipeline.ops.explain_layout import layout
from pipeline.ops.explain_line import Group, InLine, place_of
from pipeline.ops.words import lasted, when
from pipeline.topology import STAGES
from tests.runtime.world import LANED, World

PART = Partition("a", 0)


def test_a_place_in_the_line_counts_what_is_not_settled_before_it() -> None:
    """The map beside a commit names what is settled beyond it; a map that does not read is passed over."""
    told = spell(10, Progress((range(12, 15), range(20, 22)), handed=(16,), until=500))
    group = Group({PART: Commit(10, told)})
    assert place_of(Position("a", 0, 9), group) is None
    assert place_of(Position("a", 0, 13), group) is None
    assert place_of(Position("a", 0, 10), group) == InLine(0)
    assert place_of(Position("a", 0, 18), group) == InLine(5)
    assert place_of(Position("a", 0, 16), group) == InLine(3, handed_until=500)
    assert place_of(Position("a", 0, 18), Group({PART: Commit(10, "lep9:x")})) == InLine(8)
    assert place_of(Position("a", 0, 18), Group({}, {PART: 17})) == InLine(1)


def test_a_layout_names_who_writes_and_who_reads_each_topic() -> None:
    """Lanes are topics, copies are of their stage, and a foreign topic is read by the stage that is told so."""
    work = World.stage(LANED, name="work")
    known = layout("t", [work], {"work": ["app.notes"]})
    assert [known.places[f"t.laned.{lane}"].readers for lane in ("interactive", "batch")] == [("work",)] * 2
    assert known.places["t.out"].writers == ("work",)
    assert known.places["t.failures"].writers == ("work",)
    assert known.declared(known.places["t.work.dlq"], "app.notes") is None
    assert known.declared(known.places["t.work.dlq"], "t.laned.batch") == LANED
    assert "app.notes" in known.inputs("work")


@pytest.mark.parametrize("source, stage", [("p.results", "notify"), ("p.messages", "deliver"), ("p.away", "")])
def test_of_several_writers_it_is_the_one_that_reads_what_the_record_was_made_of(source: str, stage: str) -> None:
    """Two stages of the pipeline write deliveries: notify of outcomes, deliver of messages."""
    known = layout("p", STAGES)
    assert known.writer(known.places["p.deliveries"], source) == stage


@pytest.mark.parametrize(
    "ms, text",
    [
        (-5, "0 ms"),
        (999, "999 ms"),
        (1_500, "1.5 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h 0 min"),
        (2**60, "104249991 d 8 h"),
    ],
)
def test_durations_are_told_in_two_units(ms: int, text: str) -> None:
    """Whatever the number, junk included."""
    assert lasted(ms) == text


def test_times_beyond_the_calendar_are_told_too() -> None:
    """A header may claim any time up to 2**53 ms."""
    assert when(0) == "-"
    assert when(2**53).startswith("9999-12-31")

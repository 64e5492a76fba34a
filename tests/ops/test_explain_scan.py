"""Reading up to the ends that topics had, and no further; and the lines that groups stand in."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.topics import TopicSpec
from pipeline.core.offset_map import Progress, spell
from pipeline.core.record import Commit, Outgoing, Partition, Position
from pipeline.devkit.clock import wall
from pipeline.ops.explain_layout import layout
from pipeline.ops.explain_line import Group, InLine, place_of
from pipeline.ops.explain_scan import Sweep
from pipeline.ops.explain_words import lasted, when
from pipeline.topology import STAGES
from tests.runtime.world import LANED, World

PART = Partition("a", 0)


async def broker(*counts: int) -> MemoryBroker:
    """A broker with topic `a`, with so many records in each of its partitions."""
    made = MemoryBroker(wall)
    await made.create_topics([TopicSpec("a", len(counts), {})])
    for number, count in enumerate(counts):
        for _ in range(count):
            made.append(Outgoing("a", None, b"x", (), number))
    return made


@pytest.mark.virtual
async def test_a_sweep_ends_where_the_topics_ended_when_it_was_asked_for() -> None:
    """What is written meanwhile is not read, and progress says how much is done."""
    made, steps = await broker(5, 3, 0), list[tuple[int, int]]()
    spans = {Partition("a", 0): range(1, 4), Partition("a", 1): range(3), Partition("a", 2): range(0)}
    sweep = Sweep(made.reader(), spans, "reading", lambda _, done, total: steps.append((done, total)))
    read = [(record.partition, record.offset) async for record in sweep.records()]
    assert sorted(read) == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert sweep.unread == frozenset()
    assert steps[-1] == (6, 6)


@pytest.mark.virtual
async def test_a_partition_that_is_not_served_is_given_up_and_named() -> None:
    """A topic that goes while it is read must not hold a person for ever."""
    made = await broker(2)
    await made.delete_topics(["a"])
    sweep = Sweep(made.reader(), {PART: range(2)}, "reading", lambda *_: None)
    begin = asyncio.get_running_loop().time()
    assert [record async for record in sweep.records()] == []
    assert sweep.unread == {PART}
    assert asyncio.get_running_loop().time() - begin < 60


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

"""The commit frontier of one partition, against a model that knows every offset by name."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline.runtime.offsets import Frontier, Taken
from tests.examples import at_most


def taken(frontier: Frontier, *offsets: int) -> list[Taken]:
    """Take records at `offsets`."""
    records = [Taken(offset) for offset in offsets]
    for record in records:
        frontier.take(record)
    return records


def test_a_new_frontier_has_nothing_to_commit() -> None:
    """Before anything was taken or read there is no offset to commit."""
    assert Frontier().offset() is None


def test_an_idle_partition_commits_where_reading_stands() -> None:
    """With nothing open the frontier is the consumer's position, so markers and compacted ends leave no lag."""
    frontier = Frontier()
    assert frontier.offset(7) == 7
    (record,) = taken(frontier, 7)
    frontier.settle(record)
    assert frontier.offset(12) == 12
    assert frontier.offset() == 8


def test_a_position_that_lags_behind_is_not_believed() -> None:
    """A position below what was settled (a consumer that was paused and rewound) never takes the frontier back."""
    frontier = Frontier()
    (record,) = taken(frontier, 7)
    frontier.settle(record)
    assert frontier.offset(3) == 8


def test_nothing_is_committed_before_anything_is_settled() -> None:
    """The first record taken holds the frontier, wherever reading stands; what is settled beyond goes into the map."""
    frontier = Frontier()
    first, second = taken(frontier, 5, 6)
    assert frontier.offset(7) is None
    frontier.settle(second)
    assert (frontier.offset(7), frontier.settled(5)) == (5, (range(6, 7),))
    frontier.settle(first)
    assert frontier.offset() == 7


def test_the_map_has_nothing_below_a_frontier_that_passes_open_records() -> None:
    """At most once, the frontier is what was begun: records before it may stand open, and what is settled between them
    is no part of the map, which cannot say it.
    """
    frontier = Frontier()
    _, second, _, fourth, _ = taken(frontier, 10, 11, 12, 13, 14)
    frontier.settle(second)
    frontier.settle(fourth)
    assert frontier.settled(12) == (range(13, 14),)
    assert frontier.settled(14) == ()


@given(
    offsets=st.sets(st.integers(0, 30), min_size=1),
    before=st.sets(st.integers(0, 30)),
    done=st.sets(st.integers(0, 30)),
    known=st.sampled_from([(), (range(20, 25), range(40, 42))]),
    position=st.none() | st.integers(31, 50),
)
def test_to_suppose_is_to_settle_without_a_trace(
    offsets: set[int], before: set[int], done: set[int], known: tuple[range, ...], position: int | None
) -> None:
    """What a frontier would be with some records settled is what it is once they are; to ask changes nothing."""
    frontier = Frontier(known)
    records = taken(frontier, *sorted(offset for offset in offsets if not frontier.has(offset)))
    for record in records:
        if record.offset in before:
            frontier.settle(record)
    then = _seen(frontier, position)
    supposed = _seen(frontier.supposing({record for record in records if record.offset in done}), position)
    assert _seen(frontier, position) == then
    for record in records:
        if record.offset in done:
            frontier.settle(record)
    assert supposed == _seen(frontier, position)


def _seen(frontier: Frontier, position: int | None) -> tuple[object, ...]:
    offset = frontier.offset(position)
    return offset, offset is None or frontier.settled(offset), len(frontier), frontier.owed, frontier.span


def test_a_gap_counts_as_settled() -> None:
    """Offsets that do not exist (compaction, markers) are stepped over up to the next record that is open."""
    frontier = Frontier()
    first, _ = taken(frontier, 5, 9)
    frontier.settle(first)
    assert frontier.offset() == 9


def test_settling_twice_changes_nothing() -> None:
    """A second settlement of the same record moves nothing."""
    frontier = Frontier()
    first, second = taken(frontier, 1, 2)
    frontier.settle(first)
    frontier.settle(first)
    assert frontier.offset() == 2
    assert list(frontier.unsettled()) == [second]
    assert len(frontier) == 1


def test_what_a_former_owner_settled_is_not_taken_again() -> None:
    """It stays in the map until the frontier has passed it, read or not, whole or in part."""
    frontier = Frontier([range(6, 8), range(9, 20)])
    assert [frontier.has(offset) for offset in (5, 6, 7)] == [False, True, True]
    (record,) = taken(frontier, 8)
    assert frontier.has(9)
    assert frontier.settled(8) == (range(9, 20),)
    frontier.settle(record)
    assert frontier.offset() == 10
    assert frontier.settled(10) == (range(10, 20),)


class FrontierMachine(RuleBasedStateMachine):
    """Random takes, gaps, settlements in any order, and new owners who begin where the last one left word."""

    records = Bundle[Taken]("records")

    def __init__(self) -> None:
        """Begin at any offset."""
        super().__init__()
        self.frontier = Frontier()
        self.offsets: list[int] = []
        self.settled: set[int] = set()
        self.next = self.start = 10
        self.log: set[int] = set()
        self.committed = 10
        self.known: tuple[range, ...] = ()

    @rule(target=records, gap=st.integers(0, 3))
    def take(self, gap: int) -> Taken:
        """Take the next record, after a gap of offsets that do not exist; one that is settled is stepped over."""
        while self.next in self.settled or (self.log and self.next <= max(self.log) and self.next not in self.log):
            if self.next in self.log:
                assert self.frontier.has(self.next)
            self.next += 1
        if not self.log or self.next > max(self.log):
            self.next += gap
        record = Taken(self.next)
        self.log.add(self.next)
        self.next += 1
        assert not self.frontier.has(record.offset)
        self.offsets.append(record.offset)
        self.frontier.take(record)
        return record

    @rule()
    def move(self) -> None:
        """Let the next owner begin where this one has committed; what is open here is forgotten."""
        at = self.frontier.offset(self.next)
        if at is not None:
            self.committed, self.known = at, self.frontier.settled(at)
        self.frontier = Frontier(self.known)
        self.offsets = []
        self.next = self.committed

    @rule(record=consumes(records))
    def settle(self, record: Taken) -> None:
        """Settle any record."""
        self.settle_and_keep(record)

    @rule(record=records)
    def settle_and_keep(self, record: Taken) -> None:
        """Settle any record, maybe for the second time."""
        if any(record is one for one in self.frontier.unsettled()):
            self.settled.add(record.offset)
            self.frontier.settle(record)

    @invariant()
    def frontier_is_the_first_unsettled(self) -> None:
        """Everything below the frontier is settled, and what stands at it is not."""
        owed = [offset for offset in self.offsets if offset not in self.settled]
        position = self.next + 2
        at = self.frontier.offset(position)
        if not owed:
            assert at == position
        else:
            assert at in (owed[0], None)
            assert (at is None) <= (owed == self.offsets)
        assert [record.offset for record in self.frontier.unsettled()] == owed
        assert self.frontier.owed == len(owed)
        opened = [offset for offset in self.offsets if owed and offset >= owed[0]]
        assert len(self.frontier) == len(opened)

    @invariant()
    def the_map_is_what_is_settled_beyond(self) -> None:
        """Map and frontier tell of every record that exists whether it is settled; ranges rise and never touch."""
        at = self.frontier.offset(self.next)
        if at is None:
            return
        ranges = self.frontier.settled(at)
        assert all(one and (not rest or one.stop < rest[0].start) for one, rest in self._rests(ranges))
        told = {offset for offset in self.log if offset < at or any(offset in one for one in ranges)}
        assert told == {offset for offset in self.log if offset in self.settled}

    @staticmethod
    def _rests(ranges: tuple[range, ...]) -> list[tuple[range, tuple[range, ...]]]:
        return [(one, ranges[place + 1 :]) for place, one in enumerate(ranges)]


TestFrontierMachine = FrontierMachine.TestCase
TestFrontierMachine.settings = settings(max_examples=at_most(25), stateful_step_count=40)

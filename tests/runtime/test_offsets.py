"""The commit frontier of one partition, against a model that knows every offset by name."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline.runtime.offsets import Frontier, Taken


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


def test_nothing_is_committed_while_the_first_record_is_open() -> None:
    """The first record taken holds the frontier where it was committed before, wherever reading stands."""
    frontier = Frontier()
    first, second = taken(frontier, 5, 6)
    frontier.settle(second)
    assert frontier.offset(7) is None
    frontier.settle(first)
    assert frontier.offset() == 7


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


class FrontierMachine(RuleBasedStateMachine):
    """Random takes, gaps and settlements in any order."""

    records = Bundle[Taken]("records")

    def __init__(self) -> None:
        """Begin at any offset."""
        super().__init__()
        self.frontier = Frontier()
        self.offsets: list[int] = []
        self.settled: set[int] = set()
        self.next = 10

    @rule(target=records, gap=st.integers(0, 3))
    def take(self, gap: int) -> Taken:
        """Take the next record, after a gap of offsets that do not exist."""
        record = Taken(self.next + gap)
        self.next = record.offset + 1
        self.offsets.append(record.offset)
        self.frontier.take(record)
        return record

    @rule(record=consumes(records))
    def settle(self, record: Taken) -> None:
        """Settle any record."""
        self.settled.add(record.offset)
        self.frontier.settle(record)

    @rule(record=records)
    def settle_and_keep(self, record: Taken) -> None:
        """Settle any record, maybe for the second time."""
        self.settled.add(record.offset)
        self.frontier.settle(record)

    @invariant()
    def frontier_is_the_first_unsettled(self) -> None:
        """Everything below the frontier is settled, and what stands at it is not."""
        owed = [offset for offset in self.offsets if offset not in self.settled]
        position = self.next + 2
        if not owed:
            assert self.frontier.offset(position) == position
        elif owed[0] == self.offsets[0]:
            assert self.frontier.offset(position) is None
        else:
            assert self.frontier.offset(position) == owed[0]
        assert [record.offset for record in self.frontier.unsettled()] == owed
        opened = [offset for offset in self.offsets if owed and offset >= owed[0]]
        assert len(self.frontier) == len(opened)


TestFrontierMachine = FrontierMachine.TestCase
TestFrontierMachine.settings = settings(max_examples=25, stateful_step_count=40)

"""The partitions a stage owns: pauses by reason, epochs, frontiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.core.offset_map import read
from pipeline.core.ports import Consumer
from pipeline.core.record import Commit, Partition, Record
from pipeline.runtime.assignment import CROWDED, FULL, SHARED, Assignment
from pipeline.runtime.plan import plan
from pipeline.runtime.work import Item
from tests.runtime.world import LANED, World

IN_0, IN_1 = Partition("t.in", 0), Partition("t.in", 1)
TENS = Partition("t.work.retry.10s", 0)


class Told:
    """A consumer that only remembers what it was told."""

    def __init__(self) -> None:
        self.wishes: list[tuple[str, tuple[Partition, ...]]] = []
        self.places: dict[Partition, int] = {}

    def pause(self, partitions: Sequence[Partition]) -> None:
        if partitions:
            self.wishes.append(("pause", tuple(partitions)))

    def resume(self, partitions: Sequence[Partition]) -> None:
        self.wishes.append(("resume", tuple(partitions)))

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return {name: self.places[name] for name in partitions if name in self.places}


class Bench:
    """An assignment before a consumer that does nothing."""

    def __init__(self) -> None:
        self.told = Told()
        self.dropped: list[Item] = []
        consumer: Consumer = self.told  # type: ignore[assignment]  # the part of the port that is used here
        self.assignment = Assignment(plan(World.stage(), "t"), consumer, self.dropped.append)

    def take(self, name: Partition, *offsets: int) -> list[Item]:
        part = self.assignment.parts[name]
        items = [Item(Record(*name, offset, b"k", b"value"), part) for offset in offsets]
        for item in items:
            part.frontier.take(item)
            item.enter()
        return items


@pytest.fixture
def bench() -> Bench:
    """Make a bench with the first source partition and a tier."""
    made = Bench()
    made.assignment.assigned({IN_0: None, TENS: None})
    return made


def test_sources_have_a_feed_each_and_all_tiers_share_one() -> None:
    """A lane's backlog fills its own window only; retries have the weight of the most urgent source."""
    assignment = Assignment(plan(World.stage(LANED), "t"), Bench().told, lambda _: None)  # type: ignore[arg-type]  # as above
    weights = {name: feed.weight for name, feed in assignment.feeds.items()}
    assert weights == {"t.laned.interactive": 8, "t.laned.standard": 4, "t.laned.batch": 1, "retry tiers": 8}


def test_a_pause_holds_while_any_reason_does(bench: Bench) -> None:
    """Two reasons are one pause, and only the withdrawal of the last one resumes."""
    part = bench.assignment.parts[IN_0]
    for reason in ("one", "two", "one"):
        bench.assignment.pause(part, reason)
    bench.assignment.resume(part, "one")
    bench.assignment.resume(part, "never given")
    assert bench.told.wishes == [("pause", (IN_0,))]
    bench.assignment.resume(part, "two")
    assert bench.told.wishes == [("pause", (IN_0,)), ("resume", (IN_0,))]


def test_a_partition_that_has_gone_is_not_resumed(bench: Bench) -> None:
    """Its next owner decides; a late completion here must not touch it."""
    part = bench.assignment.parts[IN_0]
    bench.assignment.pause(part, "one")
    bench.assignment.lost([IN_0])
    bench.assignment.resume(part, "one")
    assert bench.told.wishes == [("pause", (IN_0,))]


def test_a_full_feed_pauses_all_its_partitions_and_no_others(bench: Bench) -> None:
    """Pause at full, resume at half; a partition that arrives meanwhile starts paused; each once."""
    feed = bench.assignment.feeds["t.in"]
    feed.window.open = feed.window.limits.records
    bench.assignment.balance(feed)
    bench.assignment.balance(feed)
    assert bench.told.wishes == [("pause", (IN_0,))]
    bench.assignment.assigned({IN_1: None})
    assert bench.told.wishes[1:] == [("pause", (IN_0,)), ("pause", (IN_1,))]
    assert bench.assignment.parts[IN_1].pauses == {FULL}
    feed.window.open = feed.window.limits.records // 2
    bench.assignment.balance(feed)
    assert bench.told.wishes[3:] == [("resume", (IN_0,)), ("resume", (IN_1,))]


def test_an_assignment_makes_all_pauses_again(bench: Bench) -> None:
    """A client that forgot them in the rebalance is told anew; what flows is left alone."""
    bench.assignment.pause(bench.assignment.parts[TENS], "its head is not due")
    bench.assignment.assigned({IN_1: None})
    assert bench.told.wishes == [("pause", (TENS,)), ("pause", (TENS,))]


def test_a_partition_assigned_again_is_another_one(bench: Bench) -> None:
    """That is the epoch: what was taken before is dropped, and a late settlement of it moves nothing."""
    old = bench.assignment.parts[IN_0]
    (item,) = bench.take(IN_0, 5)
    bench.assignment.assigned({IN_0: None})
    new = bench.assignment.parts[IN_0]
    assert new is not old
    assert (old.alive, new.alive) == (False, True)
    assert bench.dropped == [item]
    old.frontier.settle(item)
    assert bench.assignment.commits() == {}


def test_strangers_can_go_without_harm(bench: Bench) -> None:
    """A partition that was never here, or is gone already, is passed over."""
    bench.assignment.lost([IN_1])
    assert bench.assignment.revoked([IN_1]) == {}
    bench.assignment.revoked([IN_0])
    assert bench.assignment.revoked([IN_0]) == {}
    assert list(bench.assignment.parts) == [TENS]


def test_a_revocation_answers_with_the_frontier_and_drops_the_rest(bench: Bench) -> None:
    """What is done counts, also what was told before; what is not is dropped, oldest first."""
    first, second, third = bench.take(IN_0, 5, 6, 7)
    part = bench.assignment.parts[IN_0]
    part.frontier.settle(first)
    assert bench.assignment.commits() == {IN_0: Commit(6)}
    part.frontier.settle(third)
    (told,) = bench.assignment.revoked([IN_0]).values()
    assert (told.offset, read(6, told.metadata).settled) == (6, (range(7, 8),))
    assert bench.dropped == [second]


def test_only_what_has_moved_is_committed(bench: Bench) -> None:
    """The same frontier is told once; `last` tells it again."""
    (item,) = bench.take(IN_0, 5)
    parts = list(bench.assignment.parts.values())
    assert bench.assignment.commits() == {}
    bench.assignment.parts[IN_0].frontier.settle(item)
    assert bench.assignment.commits() == {IN_0: Commit(6)}
    assert bench.assignment.commits() == {}
    assert bench.assignment.last(parts) == {IN_0: Commit(6)}


def test_with_nothing_open_the_position_is_committed(bench: Bench) -> None:
    """Markers and compacted records leave no lag; a partition with something open keeps its frontier."""
    bench.told.places = {IN_0: 40, TENS: 50}
    first, _ = bench.take(TENS, 48, 49)
    assert bench.assignment.commits() == {IN_0: Commit(40)}
    bench.assignment.parts[TENS].frontier.settle(first)
    assert bench.assignment.commits() == {TENS: Commit(49)}


def test_it_owes_while_anything_sent_is_not_acknowledged(bench: Bench) -> None:
    """A drain waits for this, and not for what merely waits to be handled."""
    (item,) = bench.take(IN_0, 5)
    seen = [bench.assignment.owing]
    item.owed = 2
    seen.append(bench.assignment.owing)
    bench.assignment.parts[IN_0].frontier.settle(item)
    seen.append(bench.assignment.owing)
    assert seen == [False, True, False]


def test_room_is_taken_and_given_back_once(bench: Bench) -> None:
    """An item weighs its key and value, however often it is told to leave."""
    (item,) = bench.take(IN_0, 5)
    window = bench.assignment.feeds["t.in"].window
    assert (window.open, window.bytes) == (1, 6)
    item.leave()
    item.leave()
    assert (window.open, window.bytes) == (0, 0)
    empty = Item(Record(*IN_0, 6, None, None), item.part)
    assert empty.size == 0


def test_taking_stops_while_the_offset_map_could_overflow(bench: Bench) -> None:
    """With hundreds owed in thousands of offsets their partition waits until half are settled; all stay in the map."""
    part = bench.assignment.parts[IN_0]
    items = bench.take(IN_0, *range(0, 30_000, 60))
    bench.assignment.crowd(part)
    assert part.pauses == {CROWDED}
    for item in items[1:]:
        assert part.pauses == {CROWDED}
        part.frontier.settle(item)
        bench.assignment.crowd(part)
        if not part.pauses:
            break
    assert 200 < part.frontier.owed < 250
    commit = bench.assignment.last([part])[IN_0]
    settled = read(commit.offset, commit.metadata).settled
    assert {one.offset for one in items if not any(one.offset in ranges for ranges in settled)} == {
        one.offset for one in part.unsettled()
    }


def test_a_partition_that_holds_its_share_waits_alone(bench: Bench) -> None:
    """The client hands over blocks of one partition: one does not fill the window while the others are not in it."""
    bench.assignment.assigned({IN_1: None})
    part = bench.assignment.parts[IN_0]
    most = bench.assignment.feeds["t.in"].window.limits.records // 2
    items = bench.take(IN_0, *range(most))
    for other in bench.assignment.parts.values():
        bench.assignment.share(other)
    assert {name for name, one in bench.assignment.parts.items() if one.pauses} == {IN_0}
    assert part.pauses == {SHARED}
    for item in items[: most // 2]:
        bench.assignment.share(part)
        assert part.pauses == {SHARED}
        item.owes(1)
        item.owes(1)
    bench.assignment.share(part)
    assert not part.pauses
    for item in items:
        item.leave()
    assert part.pending == 0


def test_what_a_tier_holds_is_no_share(bench: Bench) -> None:
    """A tier's partition is bounded by its own pause behind a head that is not due."""
    bench.take(TENS, *range(2_000))
    bench.assignment.share(bench.assignment.parts[TENS])
    assert not bench.assignment.parts[TENS].pauses


def test_what_was_committed_past_markers_is_not_taken_back(bench: Bench) -> None:
    """A position that is not known any more at the end leaves the commit where it was, not at the last record."""
    (item,) = bench.take(IN_0, 5)
    bench.assignment.parts[IN_0].frontier.settle(item)
    bench.told.places = {IN_0: 9}
    assert bench.assignment.commits() == {IN_0: Commit(9)}
    bench.told.places = {}
    assert bench.assignment.revoked([IN_0]) == {IN_0: Commit(9)}

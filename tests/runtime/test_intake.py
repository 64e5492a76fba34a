"""Intake: what is booked, what may go, and what piles up behind a slow key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.core.ports import Consumer
from pipeline.core.record import Partition, Record
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.intake import JAMMED, Intake
from pipeline.runtime.plan import plan
from pipeline.runtime.window import Window, WindowLimits
from pipeline.runtime.work import Item
from tests.examples import at_most
from tests.runtime.world import Script, World

PARTS = (Partition("t.in", 0), Partition("t.in", 1))


class Deaf:
    """A consumer that is told of pauses and does nothing."""

    def pause(self, partitions: Sequence[Partition]) -> None: ...

    def resume(self, partitions: Sequence[Partition]) -> None: ...

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return {}


class IntakeMachine(RuleBasedStateMachine):
    """Random arrivals, completions and losses over two partitions and a few keys, in a window of 24 records."""

    def __init__(self) -> None:
        """Own both partitions."""
        super().__init__()
        consumer: Consumer = Deaf()  # type: ignore[assignment]  # the part of the port that is used here
        self.assignment = Assignment(plan(World.stage(), "t"), consumer, lambda item: item.leave())
        self.feed = self.assignment.feeds["t.in"]
        self.feed.window = Window(WindowLimits(buffer=8, records=24))
        self.dispatch = Dispatch([self.feed])
        # Settler and attempt are for records of tiers, which do not come in here.
        self.intake = Intake(self.assignment, self.dispatch, None, None, lambda: 0.0)  # type: ignore[arg-type]  # as above
        self.offset = 0
        self.open: list[Item] = []
        self.assignment.assigned(dict.fromkeys(PARTS))

    @rule(name=st.sampled_from(PARTS), key=st.sampled_from([b"a", b"b", b"c", None]), count=st.integers(1, 9))
    def arrive(self, name: Partition, key: bytes | None, count: int) -> None:
        """Take a few records of one key."""
        for _ in range(count):
            self.offset += 1
            item = self.intake.book(Record(*name, self.offset, key, b"value"))
            if name in self.assignment.parts:
                assert item is not None
                self.open.append(item)
                self.intake.admit(item)
            else:
                assert item is None

    @precondition(lambda self: self.feed.ready)
    @rule(count=st.integers(1, 9))
    def finish(self, count: int) -> None:
        """Handle the next few that are ready, and settle them."""
        for _ in range(min(count, len(self.feed.ready))):
            item = self.feed.ready.popleft()
            self.feed.window.ready -= 1
            item.part.frontier.settle(item)
            item.leave()
            self.intake.release(item)
            if item.part.alive:
                self.open.remove(item)

    @rule(name=st.sampled_from(PARTS))
    def come_or_go(self, name: Partition) -> None:
        """Lose a partition, or get it back."""
        if name in self.assignment.parts:
            self.assignment.lost([name])
            self.open = [item for item in self.open if item.part.name != name]
        else:
            self.assignment.assigned({name: None})

    @rule()
    def turn(self) -> None:
        """Pause or resume, as the runner does in each turn."""
        self.assignment.balance(self.feed)

    @invariant()
    def the_window_counts_what_is_open(self) -> None:
        """Every record that was taken and not settled takes room, once."""
        assert self.feed.window.open == len(self.open)
        assert self.feed.window.bytes == sum(item.size for item in self.open)

    @invariant()
    def a_partition_is_jammed_by_its_keys_over_their_share(self) -> None:
        """From a quarter of the window on, and until at most half of that is left; no other key jams."""
        share = self.feed.window.limits.key_share
        for part in self.assignment.parts.values():
            depths = {key: part.keys.depth(key) for key in (b"a", b"b", b"c")}
            assert all(depths[key or b""] > share // 2 for key in part.jammed)
            assert all(depth < share for key, depth in depths.items() if key not in part.jammed)
            assert (JAMMED in part.pauses) == bool(part.jammed)

    @invariant()
    def jams_do_not_count_against_the_others(self) -> None:
        """What waits behind jammed keys is exactly what the window leaves out."""
        parts = self.assignment.parts.values()
        assert self.feed.window.jammed == sum(part.keys.depth(key) for part in parts for key in part.jammed)

    @invariant()
    def something_can_always_be_done(self) -> None:
        """As long as a record is open, one is ready: nothing waits for itself."""
        assert not self.open or any(item.part.alive for item in self.feed.ready)


TestIntakeMachine = IntakeMachine.TestCase
TestIntakeMachine.settings = settings(max_examples=at_most(25), stateful_step_count=30)


@pytest.mark.virtual
async def test_a_record_of_a_partition_that_has_gone_is_not_booked() -> None:
    """A client may hand over what it had fetched before a revocation: it is somebody else's, so it is passed over."""
    world = await World.make(partitions=2)
    run = await world.start(Script())
    await world.settle()
    run.consumer.strays = [Record("t.in", 7, 0, b"k", b"stray"), Record("t.elsewhere", 0, 0, b"k", b"stray")]
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert run.handler.texts == ["a"]
    assert run.consumer.strays == []
    assert all(Partition("t.in", 7) not in offsets for _, offsets in run.consumer.commits)

"""The partitions a stage owns: their arrival, their pauses, their going. Implements the port `Rebalance`.

Pauses are kept as reasons per partition, since several may hold at once and none survives a rebalance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.core.offset_map import NOTHING, Progress, Unreadable, could_overflow, read, spell
from pipeline.core.ports import Consumer
from pipeline.core.record import Commit, Partition
from pipeline.runtime.follow import Follower
from pipeline.runtime.plan import Plan
from pipeline.runtime.window import limits_for
from pipeline.runtime.work import Feed, Item, Part
from pipeline.telemetry import logs

RETRY_FEED = "retry tiers"
"""The name of the feed of all tiers; no topic can be called so."""
FULL = "window is full"
CATCHING_UP = "catching up with its answers"
CROWDED = "its offset map could overflow"
SHARED = "it holds its share of the window"


class Assignment:
    """All assigned partitions of one stage, by name, and the feeds they belong to.

    `gates` are asked of each partition that arrives whether it has to wait, and why.
    """

    def __init__(
        self, plan: Plan, consumer: Consumer, dropped: Callable[[Item], None], follower: Follower | None = None
    ) -> None:
        """Make one feed for each source topic and one for all tiers. `dropped` hears of items that went with a part,
        and `follower`, of a costly stage, of parts that come and go."""
        limits = limits_for(plan.stage.concurrency)
        self.feeds = {name: Feed(name, source.weight, limits) for name, source in plan.sources.items()}
        self.feeds[RETRY_FEED] = Feed(RETRY_FEED, max(source.weight for source in plan.sources.values()), limits)
        self.parts: dict[Partition, Part] = {}
        self.gates: list[Callable[[Partition], str | None]] = []
        self.plan = plan
        self._consumer = consumer
        self._dropped = dropped
        self._least_share = limits.part_share(plan.stage.concurrency, limits.records)
        self._follower = follower
        if follower is not None:
            follower.ready = self._caught_up
        self._early = plan.stage.delivery == "at most once"

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        """Begin anew with each partition; one of a full feed starts paused. All other pauses are made again."""
        self.lost([name for name in partitions if name in self.parts])
        self._consumer.pause([name for name, part in self.parts.items() if part.pauses])
        for name, commit in partitions.items():
            tier = self.plan.tiers.get(name.topic)
            feed = self.feeds[RETRY_FEED if tier else name.topic]
            former = _former(name, commit)
            part = self.parts[name] = Part(name, feed, tier, former, early=self._early)
            if self._follower is not None:
                self._follower.came(part, commit, former)
                self.pause(part, CATCHING_UP)
            if feed.window.full:
                self.pause(part, FULL)
            for reason in filter(None, (gate(name) for gate in self.gates)):
                self.pause(part, reason)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        """Begin nothing more for partitions that leave in a moment; whether anything that runs for them needs it.

        Costly calls do not, which are handed over, nor does what was committed early, which goes on in any case.
        """
        if self._early or self._follower is not None:
            return False
        parts = [part for part in map(self.parts.get, partitions) if part]
        for part in parts:
            part.leaving = True
        return any(item.ending for part in parts for item in part.unsettled())

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Let partitions go and say how far they came. What still runs for them is stale from here on."""
        leaving = [part for part in map(self.parts.get, partitions) if part]
        for part in leaving:
            if self._follower is not None:
                self._follower.hand_over(part)
        self.lost(partitions)
        return self.last(leaving)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions; nothing is committed for them any more."""
        for name in partitions:
            part = self.parts.pop(name, None)
            if part is not None:
                part.alive = part.early
                if self._follower is not None:
                    self._follower.left(part)
                part.feed.window.jammed -= sum(map(part.keys.depth, part.jammed))
                for item in part.unsettled():
                    if part.answers is not None and item.busy:
                        item.fate = item.fate or "lost"
                    self._dropped(item)

    def commits(self, *, early: bool = True) -> dict[Partition, Commit]:
        """Return how far each part is in which anything has changed since this was last asked.

        With `early`, what is held back for an early commit is to be committed now.
        """
        reached = self.last(list(self.parts.values()))
        if early:
            early_parts = {name: part.uncommitted for name, part in self.parts.items() if part.uncommitted}
            reached |= {name: Commit(items[-1].offset + 1) for name, items in early_parts.items()}
        commits = {name: commit for name, commit in reached.items() if commit != self.parts[name].committed}
        for name, commit in commits.items():
            self.parts[name].committed = commit
        return commits

    def last(self, parts: Sequence[Part]) -> dict[Partition, Commit]:
        """Return how far each of `parts` is, changed or not: an earlier commit may have failed in a rebalance."""
        positions = self._consumer.positions([part.name for part in parts if not len(part.frontier)])
        known = {part: part.frontier.offset(part.reading(positions.get(part.name))) for part in parts}
        # What an early commit under way says of them is taken back: they were not begun.
        known |= {part: part.uncommitted[0].offset for part in parts if part.uncommitted}
        # Where answers begin, and which calls are handed over, is worth a commit though nothing is settled yet.
        known |= {part: part.frontier.first for part, at in known.items() if at is None and part.answers is not None}
        return {part.name: self._commit(part, offset) for part, offset in known.items() if offset is not None}

    @property
    def owing(self) -> bool:
        """Whether anything sent for a taken record is not acknowledged yet."""
        return any(item.owed for part in self.parts.values() for item in part.unsettled())

    def pause(self, part: Part, reason: str) -> None:
        """Stop fetching from a part for `reason`."""
        if not part.pauses:
            self._consumer.pause([part.name])
        part.pauses.add(reason)

    def resume(self, part: Part, reason: str) -> None:
        """Withdraw `reason`; fetching goes on when none is left."""
        if reason in part.pauses:
            part.pauses.remove(reason)
            if not part.pauses and part.alive:
                self._consumer.resume([part.name])

    def crowd(self, part: Part) -> None:
        """Take no more of a part whose offset map could overflow, until that is far off."""
        span, owed = part.frontier.span, part.frontier.owed
        running = self.plan.stage.concurrency if self._follower is not None else 0
        if CROWDED in part.pauses:
            if not could_overflow(span, 2 * owed, running):
                self.resume(part, CROWDED)
        elif could_overflow(span, owed, running):
            self.pause(part, CROWDED)

    def share(self, part: Part) -> None:
        """Take no more of a source's part that holds its share of the window, until it is down to half of that.

        What only waits for its acknowledgement does not count: quick handlers would have a part paused with each block.
        """
        held, feed, shared = part.pending + len(part.uncommitted), part.feed, SHARED in part.pauses
        if part.tier is not None or not (shared or held >= self._least_share):
            return
        parts = sum(other.feed is feed for other in self.parts.values())
        most = feed.window.limits.part_share(self.plan.stage.concurrency, parts)
        if shared and held <= most // 2:
            self.resume(part, SHARED)
        elif not shared and held >= most:
            self.pause(part, SHARED)

    def _caught_up(self, part: Part) -> None:
        self.resume(part, CATCHING_UP)

    def _commit(self, part: Part, frontier: int) -> Commit:
        if self._follower is not None:
            return Commit(frontier, spell(frontier, self._follower.progress(part, frontier)))
        return Commit(frontier, spell(frontier, Progress(part.frontier.settled(frontier))))

    def balance(self, feed: Feed) -> None:
        """Pause or resume all partitions of a feed as its window fills and empties."""
        if not feed.window.update():
            return
        change = self.pause if feed.window.full else self.resume
        for part in self.parts.values():
            if part.feed is feed:
                change(part, FULL)


def _former(name: Partition, commit: Commit | None) -> Progress:
    """Read what the last owner of a partition has left; what cannot be read is as if nothing were there."""
    if commit is None:
        return NOTHING
    try:
        return read(commit.offset, commit.metadata)
    except Unreadable as unreadable:
        logs.get().warning(
            f"the commit metadata of {name.topic}/{name.number} are ignored, so records may be repeated: {unreadable}",
            action="metadata_ignored",
        )
        return NOTHING

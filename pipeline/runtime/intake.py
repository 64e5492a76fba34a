"""Intake: from a fetched record to an item whose turn has come in its tier and in its key."""

from __future__ import annotations

from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.ports import Clock
from pipeline.core.record import Record
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.attempt import Attempt
from pipeline.runtime.delay import Move, Rest, exit_time, onward
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.gatekeeper import Gatekeeper, Open
from pipeline.runtime.settle import Settler
from pipeline.runtime.waiting import WaitingRoom
from pipeline.runtime.work import Item, Part

NOT_DUE = "its head is not due"
JAMMED = "one key has its share of the window"


class Intake:
    """Books what was fetched. Every record of an assigned partition is taken into its frontier, without exception."""

    def __init__(
        self, assignment: Assignment, dispatch: Dispatch, settler: Settler, attempt: Attempt, clock: Clock
    ) -> None:
        """Tie the parts together."""
        self.gate: Gatekeeper = Open()
        self._assignment = assignment
        self._dispatch = dispatch
        self._settler = settler
        self._attempt = attempt
        self._clock = clock
        self._ordered = assignment.plan.stage.order == "key"
        self._heads: WaitingRoom[Part] = WaitingRoom(clock)
        self._rests: WaitingRoom[Item] = WaitingRoom(clock)

    def book(self, record: Record) -> Item | None:
        """Take a record into its partition's frontier; None where it is settled already, or the partition not ours."""
        part = self._assignment.parts.get((record.topic, record.partition))  # type: ignore[call-overload]  # a plain tuple equals the named one
        if part is None or part.frontier.has(record.offset):
            return None
        item = Item(record, part)
        part.frontier.take(item)
        return item

    def admit(self, item: Item) -> None:
        """Send an item on its way, or hold it back until its early commit is acknowledged.

        What stands on a tier is committed when its delay is over: a stop would lose what waits here and is committed.
        """
        if item.part.early and item.part.tier is None:
            item.part.uncommitted.append(item)
        else:
            self._start(item)

    def committed(self, part: Part, offset: int) -> None:
        """Begin with what was held back for an early commit, which has reached `offset`."""
        while part.uncommitted and part.uncommitted[0].offset < offset:
            item = part.uncommitted.popleft()
            part.frontier.settle(item)
            if part.tier is None:
                self._start(item)
            else:
                self._onward(item, self._clock())

    def _start(self, item: Item) -> None:
        """Send an item through its tier's delay if it stands on one, then into its key's queue.

        What a tier holds takes no room in the window yet: the 10 min tier would else stop the 10 s tier, which shares
        it. It is bounded all the same, as a partition is paused behind a head that is not due.
        """
        part = item.part
        # What stands on a tier and is committed early ends only after that: a kill would have it told of twice.
        begun = part.tier is None or not part.early
        if begun and self.gate.alert and self.gate.refuses(item):
            return
        if part.tier is None:
            item.enter()
            self._enqueue(item)
            return
        item.due = exit_time(item.record, part.tier, self._clock())
        part.held.append(item)
        if len(part.held) == 1:
            self._hold(part)

    def release(self, item: Item) -> None:
        """Let the next record of the item's key have its turn."""
        part = item.part
        if not item.keyed:
            return
        item.keyed = False
        key = self._key(item)
        following = part.keys.release(key)
        if following is not None and part.alive:
            self._dispatch.push(following)
        if key in part.jammed and part.alive:
            part.feed.window.jammed -= 1
            self._unjam(part, key)
        if part.feed.window.full:
            # Now, and not after the fetch that waits with everything paused: quick handlers would idle meanwhile.
            self._assignment.balance(part.feed)

    def forget(self, item: Item) -> None:
        """Drop an item whose partition has gone."""
        self._rests.forget(item)
        self._heads.forget(item.part)

    def withdraw(self, item: Item) -> None:
        """Take back an item that waits in its tier, or in its key's queue behind another."""
        part, key = item.part, self._key(item)
        self._rests.forget(item)
        if item in part.held:
            part.held.remove(item)
        if item.keyed and part.keys.withdraw(key, item):
            item.keyed = False
            if key in part.jammed:
                part.feed.window.jammed -= 1
                self._unjam(part, key)

    def close(self) -> None:
        """Stop all timers; what waits stays unsettled."""
        self._heads.clear()
        self._rests.clear()

    @property
    def resting(self) -> int:
        """How many records of tiers wait in place."""
        return len(self._rests)

    def _enqueue(self, item: Item) -> None:
        part = item.part
        key = self._key(item)
        item.keyed = True
        window = part.feed.window
        if part.keys.push(key, item):
            self._dispatch.push(item)
        elif key in part.jammed:
            window.jammed += 1
        elif part.keys.depth(key) >= window.limits.key_share:
            part.jammed.add(key)
            window.jammed += part.keys.depth(key)
            self._assignment.pause(part, JAMMED)

    def _key(self, item: Item) -> bytes | None:
        return item.record.key if self._ordered else None

    def _unjam(self, part: Part, key: bytes | None) -> None:
        depth, window = part.keys.depth(key), part.feed.window
        if depth <= window.limits.key_share // 2:
            part.jammed.remove(key)
            window.jammed -= depth
            if not part.jammed:
                self._assignment.resume(part, JAMMED)

    def _hold(self, part: Part) -> None:
        """Let go what is due at the head of a tier's partition; wait for the rest with the partition paused."""
        now = self._clock()
        while part.held:
            due = part.held[0].due
            if due > now:
                self._assignment.pause(part, NOT_DUE)
                self._heads.wait(part, due, self._hold)
                return
            item = part.held.popleft()
            if part.early:
                part.uncommitted.append(item)
            else:
                self._onward(item, now)
        self._assignment.resume(part, NOT_DUE)

    def _until(self, event: Event[Payload]) -> float:
        """Tell until when a record waits: no longer than its job has time, if the stage ends it then."""
        deadline = event.job.deadline_ms if self._assignment.plan.stage.enforce_deadline else None
        return event.not_before if deadline is None else min(event.not_before, deadline / 1000)

    def _onward(self, item: Item, now: float) -> None:
        item.enter()
        if item.part.answers is not None and item.part.answers.has(item.offset, item.record.timestamp_ms):
            self._enqueue(item)  # to be settled: a copy of it stands elsewhere already
            return
        event = self._attempt.bare(item)
        match onward(self._until(event), now, self._assignment.plan.stage.retry.tiers):
            case Move(tier, not_before):
                self._settler.move(item, event, tier, not_before)
            case Rest(until):
                self._rests.wait(item, until, self._enqueue)
            case _:
                self._enqueue(item)

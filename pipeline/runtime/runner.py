"""The runner: one stage, from its topics to its topics, until it is told to stop or halts itself.

One owner of the consumer (`_consume`), many workers, one ledger (this class). Workers are long-lived tasks that pull
from the dispatch; nothing is created per record but its item.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pipeline.core.errors import Halt, Reject
from pipeline.core.flood import FloodGuard
from pipeline.core.ports import Admission, Clock, Codec, Consumer, Producer, Reader, RecordDecoder, Transactions
from pipeline.core.retry import describe
from pipeline.core.stage import Handler
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.attempt import Attempt
from pipeline.runtime.counterparts import Counterparts, Counts
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.follow import Follower
from pipeline.runtime.gate import Gate
from pipeline.runtime.heads import Heads
from pipeline.runtime.intake import Intake
from pipeline.runtime.observe import Observer
from pipeline.runtime.once import GroupCommit, GroupSettler
from pipeline.runtime.owners import Members, Owners
from pipeline.runtime.plan import Plan
from pipeline.runtime.settle import Settler, refusal
from pipeline.runtime.work import Item
from pipeline.runtime.workers import Workers

COMMIT_SECONDS = 0.1
FETCH_SECONDS = 0.1
FETCH_RECORDS = 500
ROOM_SECONDS = 0.04

# Ends that say nothing of whether the stage is at fault: the guard counts dead letters before they are written.
_UNDECIDED = frozenset({"retry", "moved", "dead_letter", "ignored"})

State = Literal["starting", "running", "draining", "stopped", "halted"]


@dataclass(frozen=True, slots=True)
class Kit:
    """What a runner works with. `drain_seconds` bounds the finish after a stop; `version` is the software's.

    `dead_before` is how many dead letters of the stage are fresh at the start, `accept_dead` how many more a person
    lets pass. `counts` tells how many partitions topics have; without it all counterparts are taken to be there.
    `admission` is asked before a record is handled; without it all are admitted.
    A costly stage needs a `reader` of its own, an exactly-once stage `transactions`. `members` names those of a group,
    so that a costly stage need not wait for a call whose owner is gone. `foreign` decodes what stands on the
    plan's foreign topics.
    """

    consumer: Consumer
    producer: Producer
    codec: Codec
    clock: Clock
    observer: Observer = field(default_factory=Observer)
    version: str = "0"
    drain_seconds: float = 30.0
    dead_before: int = 0
    accept_dead: int = 0
    counts: Counts | None = None
    reader: Reader | None = None
    transactions: Transactions | None = None
    admission: Admission | None = None
    members: Members | None = None
    foreign: RecordDecoder | None = None


class Runner:
    """Runs one stage. `run` returns after `stop` and a drain; it raises Halt where the stage stopped itself."""

    def __init__(self, plan: Plan, handler: Handler[Any, Any], kit: Kit) -> None:
        """Tie a plan, a handler and a kit together; nothing runs yet."""
        self.plan = plan
        self.state: State = "starting"
        self._kit = kit
        self._follower = _follower(plan, kit)
        self._assignment = Assignment(plan, kit.consumer, self._dropped, self._follower)
        self._dispatch = Dispatch(list(self._assignment.feeds.values()))
        attempt = Attempt(plan, handler, kit.codec, kit.clock, kit.foreign)
        self._group = self._group_commit()
        settler = self._settler()
        self._intake = Intake(self._assignment, self._dispatch, settler, attempt, kit.clock)
        self._guard = FloodGuard(plan.stage.flood, kit.dead_before, kit.accept_dead)
        self._workers = Workers(attempt, settler, self._intake, self._dispatch, kit.observer, self)
        self._early = plan.stage.delivery == "at most once"
        self._heads = Heads()
        self._counterparts = Counterparts(plan, self._assignment, kit.counts)
        self._assignment.gates.append(self._counterparts.gate)
        self._gate = Gate(kit.admission, attempt, self._assignment, self._dispatch) if kit.admission else None
        if self._gate:
            self._gate.attach(self._workers, self._intake)
        if self._follower is not None:
            self._workers.follower = self._follower
            self._follower.push = self._dispatch.push
            self._follower.failed = self._unfollowed
            if self._gate:
                self._gate.needs_no_call = self._follower.needs_no_call
        self._stop = asyncio.Event()
        self._halt: Halt | None = None
        self._next_commit = 0.0

    def _group_commit(self) -> GroupCommit | None:
        if self.plan.stage.delivery != "exactly once":
            return None
        kit = self._kit
        if kit.transactions is None:
            raise ValueError(f"stage {self.plan.stage.name} is exactly once, and needs transactions")
        heard = partial(kit.observer.committed, self.plan)
        return GroupCommit(self._assignment, kit.consumer, kit.transactions, heard, self.halt)

    def _settler(self) -> Settler:
        kit = self._kit
        if self._group is None:
            return Settler(self.plan, kit.producer, kit.codec, kit.clock, ledger=self, version=kit.version)
        return GroupSettler(
            self.plan, kit.producer, kit.codec, kit.clock, ledger=self, version=kit.version, group=self._group
        )

    # -------------------------------------------------------------- life

    async def run(self) -> None:
        """Run until stopped. Raises Halt when going on would do harm; all that was settled is committed then too."""
        try:
            await self._counterparts.begin()
            if self._follower is not None:
                self._follower.start()
            self._kit.consumer.subscribe(self.plan.topics, self._group or self._assignment)
            self._change("running")
            while not self._stop.is_set():
                await self._turn()
        except Halt as halt:
            self.halt(halt)
        finally:
            await self._drain()
        if self._halt is not None:
            raise self._halt

    def stop(self) -> None:
        """Ask for a drain. Returns at once."""
        self._stop.set()

    @property
    def reason(self) -> str:
        """Why the stage halted; empty otherwise."""
        return self._halt.reason if self._halt else ""

    def ready(self) -> bool:
        """Whether the stage does all its work: connected, with all topics there, and neither draining nor halted.

        A foreign topic may be missing: a connector makes it with the first row of a table, and it is read from then on.
        """
        hindered = self._missing(foreign=False) or self._counterparts.reason
        return self.state == "running" and self._kit.consumer.connected() and not hindered

    def _missing(self, *, foreign: bool) -> str:
        """Name the topics that do not exist, of others' or of ours."""
        known = self.plan.foreign
        return ", ".join(name for name in self._kit.consumer.missing() if (name in known) == foreign)

    async def _turn(self) -> None:
        self._counterparts.tend(asyncio.get_running_loop().time())
        records = await self._kit.consumer.fetch(FETCH_RECORDS, FETCH_SECONDS)
        for record in records:
            item = self._intake.book(record)
            if item is not None:
                self._intake.admit(item)
        self._begin_early()
        # A backlog makes every fetch return at once: the workers need their turn all the same, and then the producer.
        # Whoever waits for these records downstream waits for nothing that follows here.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._kit.observer.taken(self.plan, len(records))
        for part in self._assignment.parts.values():
            self._assignment.crowd(part)
            self._assignment.share(part)
        await self._make_room()
        for feed in self._assignment.feeds.values():
            self._assignment.balance(feed)
        self._commit()

    async def _make_room(self) -> None:
        """Give quick handlers a moment before partitions are paused.

        The client throws away what it has fetched ahead of a paused partition, and takes up to a second to go on.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + ROOM_SECONDS
        windows = [feed.window for feed in self._assignment.feeds.values() if not feed.window.full]
        while any(window.filled for window in windows):
            if clock() >= end:
                return
            await asyncio.sleep(ROOM_SECONDS / 20)

    def _begin_early(self) -> None:
        """Begin with records whose early commit is acknowledged."""
        waiting = {name: part for name, part in self._assignment.parts.items() if part.uncommitted}
        for name, offset in self._kit.consumer.committed(list(waiting)).items():
            self._intake.committed(waiting[name], offset)

    async def _drain(self) -> None:
        self._change("draining")
        if not self._early:
            self._intake.close()
            self._dispatch.close()
        clock = asyncio.get_running_loop().time
        end = clock() + self._kit.drain_seconds
        while self._unfinished and clock() < end and await self._beat():
            pass
        self._intake.close()
        self._dispatch.close()
        if self._workers.busy:
            self._kit.observer.abandoned(self.plan, [item.record.position for item in self._workers.running])
        await self._counterparts.close()
        await self._workers.close()
        await self._take_leave(max(1.0, end - clock()))
        self._change("halted" if self._halt else "stopped")

    @property
    def _unfinished(self) -> bool:
        """Whether a drain has to wait. What was committed early is handled now or never."""
        taken = self._early and not self._halt and any(feed.window.open for feed in self._assignment.feeds.values())
        return taken or self._workers.busy or self._owing

    @property
    def _owing(self) -> bool:
        """Whether anything is not acknowledged yet, of what is ours or was handed over: the next owner waits for that
        only while this member is there."""
        return self._assignment.owing or (self._follower is not None and self._follower.owing)

    async def _take_leave(self, seconds: float) -> None:
        """Wait for the last acknowledgements, commit for the last time, and leave the group."""
        if self._group is not None:
            await self._group.close(seconds)
            await self._kit.consumer.close({})
            return
        if self._owing:
            await self._kit.producer.flush(seconds)
        if self._follower is not None:
            await self._follower.close()
        await self._kit.consumer.close(self._assignment.last(list(self._assignment.parts.values())))

    async def _beat(self) -> bool:
        """Stay a member while the last handlers finish: paused, polled, committing. False where that is over."""
        for part in self._assignment.parts.values():
            self._assignment.pause(part, "draining")
        try:
            records = await self._kit.consumer.fetch(FETCH_RECORDS, FETCH_SECONDS)
        except Halt as halt:
            self.halt(halt)
            return False
        for record in records:
            # Prefetched before the pause took hold: booked and never handled, so the frontier stays below it.
            self._intake.book(record)
        self._commit()
        await asyncio.sleep(0)
        return True

    def _change(self, state: State) -> None:
        self.state = state
        self._kit.observer.changed(self.plan, state, self.reason)

    # -------------------------------------------------------------- the ledger

    def settled(self, item: Item) -> None:
        """Book an item's end. A part that has gone takes no bookings: its record is somebody else's now."""
        self._kit.observer.settled(self.plan, item.end)
        if item.end not in _UNDECIDED:
            self._guard.lived()
        if self._gate and self._gate.holding:
            self._gate.forget(item)
        if self._follower is not None:
            self._follower.acknowledged(item)
        part = item.part
        if not part.alive:
            return
        part.frontier.settle(item)
        item.leave()

    def undeliverable(self, item: Item, error: Exception) -> None:
        """Bring an item whose end was refused to another end, or stop the stage where none is left."""
        verdict = refusal(item, error)
        if isinstance(verdict, Reject):
            self._workers.conclude_later(item, verdict)
        else:
            where = str(item.record.position)
            self.halt(Halt(f"the broker refuses what record {where} leads to ({item.end}): {describe(error)}"))

    def untold(self, item: Item, error: Exception) -> None:
        """Report a dead letter of which its owner will not hear."""
        self._kit.observer.untold(self.plan, item.record.position, error)

    def _unfollowed(self, error: BaseException) -> None:
        """Stop where the answers cannot be followed: to go on would be to pay blindly."""
        reason = f"the answers of {self.plan.stage.name} cannot be followed any more: {describe(error)}"
        self.halt(error if isinstance(error, Halt) else Halt(reason))

    def _dropped(self, item: Item) -> None:
        self._intake.forget(item)
        self._workers.forget(item)
        if self._gate:
            self._gate.forget(item)
        item.leave()

    def _commit(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_commit:
            return
        self._next_commit = now + COMMIT_SECONDS
        for late in self._heads.look(self._assignment.parts.values(), now):
            self._kit.observer.late(self.plan, late, self._workers.doing(late.item))
        self._report()
        if self._group is not None:
            self._group.turn()
            return
        commits = self._assignment.commits(early=self.state == "running")
        if commits:
            self._kit.consumer.commit(commits)
            self._kit.observer.committed(self.plan)

    def may_die(self, reason: str) -> bool:
        """Count a record that is to be a dead letter; halts the stage instead where that would be a flood of them."""
        if self._guard.died():
            return True
        name = self.plan.stage.name
        self.halt(
            Halt(
                f"{self._guard.describe()} became dead letters, the newest for: {reason}. They are in"
                f" {self.plan.dead_letters}; mend the cause and start again, or let more of them pass:"
                f" `pipeline run {name} --accept-dead-letters 1000`",
                code="flood",
            )
        )
        return False

    def halt(self, halt: Halt) -> None:
        """Stop the stage; the first reason is the one that is told."""
        if self._halt is None:
            self._halt = halt
            self._stop.set()
            # At once: the next record of a halted one's key must not be handled before it.
            self._dispatch.close()

    def _report(self) -> None:
        self._kit.observer.gauges(
            self.plan,
            open=sum(feed.window.open for feed in self._assignment.feeds.values()),
            waiting=self._workers.waiting + self._intake.resting,
            partitions=len(self._assignment.parts),
            paused=sum(bool(part.pauses) for part in self._assignment.parts.values()),
            head=self._heads.age,
            held=len(self._gate.holding) if self._gate else 0,
            stage_paused=bool(self._gate and self._gate.reason),
        )

    def status(self) -> tuple[str, bool, str]:
        """Say how the stage is, for `/readyz`: its name, whether it does its work, its state in words."""
        return self.plan.stage.name, self.ready(), self._words()

    def _words(self) -> str:
        if self._halt:
            return f"halted: {self.reason}"
        if self.state != "running":
            return self.state
        if not self._kit.consumer.connected():
            return "waiting for the broker"
        if missing := self._missing(foreign=False):
            return f"waiting for topics that do not exist: {missing}"
        paused = f"paused by hand ({self._gate.reason})" if self._gate and self._gate.reason else ""
        if not paused and self._follower is not None and self._follower.behind:
            return self._follower.behind
        others = self._missing(foreign=True)
        waiting = f"these topics of others do not exist yet: {others}" if others else ""
        hindered = paused or self._counterparts.reason or waiting
        return f"running, but {hindered}" if hindered else self.state


def _follower(plan: Plan, kit: Kit) -> Follower | None:
    if not plan.stage.costly:
        return None
    if kit.reader is None:
        raise ValueError(f"stage {plan.stage.name} is costly: it needs a reader to find its answers")
    return Follower(plan, kit.reader, kit.clock, Owners(plan.group, kit.consumer.name, kit.members))

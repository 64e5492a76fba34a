"""The ports `Producer` and `Consumer` on the broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.broker.bell import Bell
from pipeline.broker.memory_group import Group
from pipeline.broker.verdicts import out_of_range
from pipeline.broker.wishes import Wishes
from pipeline.core.ports import Delivered, Rebalance
from pipeline.core.record import Commit, Outgoing, Partition, Position, Record


class Times(Protocol):
    """What of the broker's times a producer goes by."""

    @property
    def acknowledge(self) -> float:
        """Seconds from a send to its acknowledgement."""
        ...


class Logs(Protocol):
    """What clients need of the broker."""

    @property
    def times(self) -> Times:
        """How long things take."""
        ...

    def append(self, record: Outgoing) -> Position:
        """Write a record."""
        ...

    def read_committed(self, name: Partition, offset: int, limit: int) -> tuple[Sequence[Record], int]:
        """Return records from `offset` on, and where to read on."""
        ...

    def range(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset and the next one."""
        ...

    def count(self, topic: str) -> int:
        """Count the partitions of a topic, 0 where it does not exist."""
        ...

    def group(self, name: str) -> Group:
        """Return a group."""
        ...


class MemoryProducer:
    """Writes at once; the acknowledgement comes in a later turn of the loop, in the order of the sends."""

    def __init__(self, logs: Logs) -> None:
        """Write to `logs`."""
        self._logs = logs
        self._open = 0
        self._all_done = asyncio.Event()

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        """Write a record."""
        self._open += 1
        self._all_done.clear()
        failure: Exception | None = None
        try:
            self._logs.append(record)
        except Exception as error:
            failure = error
        self._acknowledge(delivered, failure)

    async def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all is acknowledged; returns how many records still are not."""
        if self._open:
            try:
                async with asyncio.timeout(timeout):
                    await self._all_done.wait()
            except TimeoutError:
                pass
        return self._open

    def _acknowledge(self, delivered: Delivered, failure: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self._logs.times.acknowledge, self._end, delivered, failure)

    def _end(self, delivered: Delivered, failure: Exception | None) -> None:
        self._open -= 1
        if not self._open:
            self._all_done.set()
        delivered(failure)


class MemoryConsumer:
    """A member of a group. Give and take of partitions happens inside its own `fetch`, as with the real client."""

    def __init__(self, logs: Logs, group: str, number: int, patience: float) -> None:
        """Make a consumer that no group knows yet. `patience`: seconds without a fetch before it is put out."""
        self.group = group
        self.number = number
        self._logs = logs
        self._group = logs.group(group)
        self._patience = patience
        self._topics: tuple[str, ...] = ()
        self._rebalance: Rebalance
        self._wishes = Wishes()
        self._next: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._committed: dict[Partition, int] = {}
        self._reached: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._bell = Bell()
        self._put_out: asyncio.TimerHandle | None = None
        self._word: bytes | None = None
        self._expelled = False
        self._closed = False
        self._dead = False

    # -------------------------------------------------------------- the port

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group for `topics`; those that do not exist yet are waited for."""
        self._topics = tuple(topics)
        self._rebalance = rebalance
        self._group.join(self.number, self._topics, self.wake)

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after `timeout` seconds."""
        if self._put_out is not None:
            self._put_out.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            while not self._closed:
                await self._stay_dead()
                records = self._take(limit)
                if records or loop.time() >= deadline - 1e-6:  # what a float is rounded by; else it spins at one moment
                    return records
                await self._bell.wait(deadline)
            return ()
        finally:
            self._put_out = loop.call_later(self._patience, self.expel)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop fetching from `partitions`."""
        self._wishes.pause(partitions)
        self.wake()

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on fetching from `partitions`."""
        self._wishes.resume(partitions)
        self.wake()

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` soon."""
        self._wishes.commit(offsets)
        self.wake()

    def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return how far this member has committed."""
        return {name: self._committed[name] for name in partitions if name in self._committed}

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return where reading stood when the last `fetch` began."""
        return {name: self._positions[name] for name in partitions if name in self._positions}

    async def close(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` and what still waits to be committed, and leave the group."""
        if self._closed or self._dead:
            return
        self._closed = True
        if self._put_out is not None:
            self._put_out.cancel()
        self._hear_of_loss()
        self._wishes.commit(offsets)
        self._group.committed.update(self._wishes.take_commits(self._next))
        self._give(sorted(self._next))
        self._group.leave(self.number)
        self.wake()

    def missing(self) -> Sequence[str]:
        """Name the subscribed topics that do not exist."""
        return [name for name in self._topics if not self._logs.count(name)]

    def connected(self) -> bool:
        """Whether it lives: the broker is always there."""
        return not self._dead

    def membership(self) -> bytes | None:
        """Return who this member was when the last `fetch` began, or a revocation."""
        return self._word

    def name(self) -> str:
        """Return this member's number in the group."""
        return str(self.number) if self._word else ""

    # -------------------------------------------------------------- for the broker

    def wake(self) -> None:
        """Let a waiting fetch look again."""
        self._bell.ring()

    def die(self) -> None:
        """Do nothing any more, ever: a fetch under way never returns."""
        self._dead = True

    def expel(self) -> None:
        """Be put out of the group, and hear of it in the next fetch."""
        if not self._closed and not self._dead:
            self._expelled = True
            self._group.leave(self.number)

    # -------------------------------------------------------------- parts

    def _take(self, limit: int) -> list[Record]:
        self._hear_of_loss()
        self._give(self._group.to_give(self.number))
        self._receive()
        self._word = self._group.word(self.number)
        pauses, resumes = self._wishes.take_pauses(self._next, self._paused)
        self._paused = self._paused.union(pauses).difference(resumes)
        self._positions = dict(self._reached)
        records = self._read(limit)
        commits = self._wishes.take_commits(self._next)
        self._group.committed.update(commits)
        self._committed.update({name: commit.offset for name, commit in commits.items()})
        return records

    def _hear_of_loss(self) -> None:
        if self._expelled:
            self._expelled = False
            self._word = None
            lost = sorted(self._next)
            self._forget(lost)
            if lost:
                self._rebalance.lost(lost)
            if not self._closed:
                self._group.join(self.number, self._topics, self.wake)

    def _give(self, names: Sequence[Partition]) -> None:
        if not names:
            return
        waiting = self._wishes.forget(names)
        self._word = self._group.word(self.number)
        answer = self._rebalance.revoked(names)
        self._group.committed.update({**waiting, **{name: at for name, at in answer.items() if name in names}})
        self._forget(names)
        self._group.give(names)

    def _receive(self) -> None:
        found = {name: self._group.committed.get(name) for name in self._group.take(self.number)}
        for name, commit in found.items():
            self._next[name] = self._logs.range(name)[0] if commit is None else commit.offset
        if found:
            self._rebalance.assigned(found)

    def _forget(self, names: Sequence[Partition]) -> None:
        self._wishes.forget(names)
        for name in names:
            self._next.pop(name, None)
            self._reached.pop(name, None)
            self._positions.pop(name, None)
            self._paused.discard(name)
            self._committed.pop(name, None)

    def _read(self, limit: int) -> list[Record]:
        active = [name for name in self._next if name not in self._paused]
        for name in active:
            low, high = self._logs.range(name)
            if not low <= self._next[name] <= high:
                raise out_of_range(self.group, name, self._next[name], low, high)
        records: list[Record] = []
        for name in active:
            taken, reached = self._logs.read_committed(name, self._next[name], limit - len(records))
            if reached > self._next[name]:
                # To the end of the line, so that no partition is always served first.
                del self._next[name]
                self._next[name] = self._reached[name] = reached
                records += taken
        return records

    async def _stay_dead(self) -> None:
        if self._dead:
            await asyncio.get_running_loop().create_future()

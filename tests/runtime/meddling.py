"""The clients of the in-memory broker, with every fault that a test wants to script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from pipeline.broker.memory import MemoryBroker
from pipeline.core.errors import Halt
from pipeline.core.ports import Delivered, Rebalance
from pipeline.core.record import Commit, Outgoing, Partition, Record


class Producer:
    """Writes at once. Acknowledgements take `delay` seconds; `refuse` says what the cluster will not take."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.delay = 0.0
        self.refuse: Callable[[Outgoing], Exception | None] = lambda _: None
        self.dead = False
        self.sent: list[Outgoing] = []
        self._inner = broker.producer()
        self._open = 0

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        if self.dead:
            return
        self.sent.append(record)
        self._open += 1
        error = self.refuse(record)
        if error is not None:
            self._later(delivered, error)
        else:
            self._inner.send(record, lambda failure: self._later(delivered, failure))

    def _later(self, delivered: Delivered, error: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self.delay, self._end, delivered, error)

    def _end(self, delivered: Delivered, error: Exception | None) -> None:
        self._open -= 1
        if not self.dead:
            delivered(error)

    async def flush(self, timeout: float) -> int:
        end = asyncio.get_running_loop().time() + timeout
        while self._open and not self.dead and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        return self._open


class Consumer:
    """A member of a group that can stall, be killed, lose its commits, forget its pauses or hear of them late."""

    def __init__(self, broker: MemoryBroker, group: str, patience: float | None = None) -> None:
        self.group = group
        self.topics: tuple[str, ...] = ()
        self.rebalance: Rebalance
        self.commits: list[tuple[float, dict[Partition, Commit]]] = []
        self.pauses: list[tuple[float, Partition, bool]] = []
        self.failure: BaseException | None = None
        self.stall = 0.0
        self.pauses_late = False
        self.forgets_pauses = False
        self.loses_commits = False
        self.up = True
        self.dead = False
        self.owned: set[Partition] = set()
        self.strays: list[Record] = []
        self._late: list[tuple[Partition, bool]] = []
        self._broker = broker
        self._inner = broker.consumer(group, patience)

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        self.topics, self.rebalance = tuple(topics), rebalance
        self._inner.subscribe(topics, _Overheard(rebalance, self))

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        if self.stall:
            stall, self.stall = self.stall, 0.0
            await asyncio.sleep(stall)
        late, self._late = self._late, []
        records = () if self.dead else await self._inner.fetch(limit, timeout)
        if self.dead:
            self._broker.kill(self._inner)
            raise Halt("killed")
        if self.failure is not None:
            raise self.failure
        for name, pause in late:
            (self._inner.pause if pause else self._inner.resume)([name])
        strays, self.strays = self.strays, []
        return [*strays, *records]

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._wish(partitions, pause=True)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._wish(partitions, pause=False)

    def _wish(self, partitions: Sequence[Partition], *, pause: bool) -> None:
        now = asyncio.get_running_loop().time()
        self.pauses += [(now, name, pause) for name in partitions]
        if self.pauses_late:
            self._late += [(name, pause) for name in partitions]
        else:
            (self._inner.pause if pause else self._inner.resume)(partitions)

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        self.commits.append((asyncio.get_running_loop().time(), dict(offsets)))
        if not self.loses_commits:
            self._inner.commit(offsets)

    def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return self._inner.committed(partitions)

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return self._inner.positions(partitions)

    async def close(self, offsets: Mapping[Partition, Commit]) -> None:
        if not self.dead:
            self.commits.append((asyncio.get_running_loop().time(), dict(offsets)))
            await self._inner.close(offsets)

    def missing(self) -> Sequence[str]:
        return self._inner.missing()

    def connected(self) -> bool:
        return self.up and self._inner.connected()

    def membership(self) -> bytes | None:
        return self._inner.membership()

    def name(self) -> str:
        return self._inner.name()

    def paused(self, topic: str, number: int = 0) -> bool:
        """Whether the last wish for a partition was to pause it."""
        wishes = [pause for _, name, pause in self.pauses if name == (topic, number)]
        return bool(wishes) and wishes[-1]


class _Overheard:
    """Passes on what a rebalance says, and meddles with it."""

    def __init__(self, inner: Rebalance, consumer: Consumer) -> None:
        self._inner = inner
        self._consumer = consumer

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        consumer = self._consumer
        if consumer.forgets_pauses:
            consumer.resume(sorted(consumer.owned))
        consumer.owned.update(partitions)
        self._inner.assigned(partitions)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        return self._inner.leaving(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        self._consumer.owned.difference_update(partitions)
        return self._inner.revoked(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self._consumer.owned.difference_update(partitions)
        self._inner.lost(partitions)


class Bottomless(MemoryBroker):
    """A broker with one partition that holds any number of records without keeping them."""

    def __init__(self, clock: Callable[[], float], name: Partition, count: int, make: Callable[[int], Record]) -> None:
        super().__init__(clock)
        self._deep = name
        self._count = count
        self._make = make

    def read(self, name: Partition, offset: int, limit: int) -> Sequence[Record]:
        if name != self._deep:
            return super().read(name, offset, limit)
        return [self._make(place) for place in range(offset, min(offset + limit, self._count))]

    def range(self, name: Partition) -> tuple[int, int]:
        return (0, self._count) if name == self._deep else super().range(name)

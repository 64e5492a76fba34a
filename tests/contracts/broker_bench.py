"""What the broker's contract is proved on: a broker, seen through the ports, and an owner that watches partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pipeline.broker.topics import Creation, TopicSpec, TopicState
from pipeline.core.ports import Batch, Consumer, Producer, Reader, Transactions
from pipeline.core.record import Commit, Outgoing, Partition, Record

PATIENCE = 3.0
"""Seconds after which the contract's impatient member is put out of its group."""

TURN = 0.2
"""Seconds of one fetch: a broker that has something answers well before."""

GIVE_UP = 40.0
"""Seconds after which nothing more is expected: far more than a broker on a busy machine needs."""


class Cluster(Protocol):
    """What `Admin` and `MemoryBroker` have in common."""

    async def wait_for_broker(self, timeout: float, progress: Callable[[str], None]) -> None: ...
    async def create_topics(self, specs: Iterable[TopicSpec]) -> Mapping[str, Creation]: ...
    async def delete_topics(self, names: Iterable[str]) -> None: ...
    async def describe_topics(self, names: Iterable[str]) -> Mapping[str, TopicState]: ...
    async def partitions(self, topics: Iterable[str]) -> Mapping[str, int]: ...
    async def grow_topic(self, topic: str, partitions: int) -> None: ...
    async def end_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]: ...
    async def begin_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]: ...
    async def offsets_at(self, topics: Iterable[str], timestamp_ms: int) -> Mapping[Partition, int]: ...
    async def delete_records(self, below: Mapping[Partition, int]) -> Mapping[Partition, int]: ...
    async def written_since(self, topics: Iterable[str], timestamp_ms: int) -> int: ...
    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]: ...
    async def commits(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]: ...
    async def lag(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]: ...
    async def members(self, group: str) -> Collection[str]: ...


class Doomed(Protocol):
    """A member that owns its whole topic and will not say good-bye."""

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        ...


class Bench(Protocol):
    """One broker, for one test. Its consumers and producers are closed with it."""

    @property
    def cluster(self) -> Cluster:
        """The broker as an administrator sees it."""
        ...

    def name(self) -> str:
        """A name nobody has used: for a topic or a group."""
        ...

    def producer(self) -> Producer:
        """A producer."""
        ...

    def consumer(self, group: str, *, impatient: bool = False) -> Consumer:
        """A consumer; an impatient one must fetch every `PATIENCE` seconds."""
        ...

    def reader(self) -> Reader:
        """A reader."""
        ...

    def transactions(self, group: str, transactional_id: str) -> Transactions:
        """Transactions for the offsets of a group."""
        ...

    def dying(self, group: str, transactional_id: str, batch: Batch) -> AbstractAsyncContextManager[Doomed]:
        """A producer that has written all of `batch`, its offsets too, and has not committed it."""
        ...

    def doomed(self, group: str, topic: str) -> AbstractAsyncContextManager[Doomed]:
        """A member that owns all of `topic` when the block is entered, and has read some of it."""
        ...

    async def trim(self, partition: Partition, below: int) -> None:
        """Delete the records below an offset."""
        ...

    async def missed(self) -> None:
        """Wait until a killed member must have been missed."""
        ...


Opens = Callable[[], AbstractAsyncContextManager[Bench]]
"""How a test opens its bench: the fixture `opened`."""


class Owner:
    """Listens to a consumer's rebalances, and says at a revocation what `offsets` holds."""

    def __init__(self) -> None:
        """Own nothing."""
        self.owned: set[Partition] = set()
        self.was_assigned: list[Partition] = []
        self.found: dict[Partition, Commit | None] = {}
        self.was_revoked: list[Partition] = []
        self.was_lost: list[Partition] = []
        self.offsets: dict[Partition, Commit] = {}
        self.loop = asyncio.get_running_loop()

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        """Note what came."""
        assert asyncio.get_running_loop() is self.loop
        self.was_assigned += partitions
        self.found.update(partitions)
        self.owned.update(partitions)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        """Nothing runs."""
        assert asyncio.get_running_loop() is self.loop
        return False

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Note what goes and say how far it came."""
        assert asyncio.get_running_loop() is self.loop
        self.was_revoked += partitions
        self.owned.difference_update(partitions)
        return {name: self.offsets.pop(name) for name in partitions if name in self.offsets}

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Note what is gone."""
        assert asyncio.get_running_loop() is self.loop
        self.was_lost += partitions
        self.owned.difference_update(partitions)

    def read(self, records: Iterable[Record]) -> None:
        """Take the records for done: they will be committed when their partition goes."""
        for record in records:
            self.offsets[Partition(record.topic, record.partition)] = Commit(record.offset + 1)


async def new_topic(
    bench: Bench, partitions: int = 1, config: Mapping[str, str] | None = None, name: str | None = None
) -> str:
    """Create a topic, under a new name unless one is given."""
    name = name or bench.name()
    assert await bench.cluster.create_topics([TopicSpec(name, partitions, config or {})]) == {name: "created"}
    return name


def waiting_fetch(consumer: Consumer | Reader) -> asyncio.Task[list[Record]]:
    """Begin a fetch that waits for a record, for an hour if need be."""

    async def fetch() -> list[Record]:
        return list(await consumer.fetch(500, 3600.0))

    return asyncio.create_task(fetch())


async def write(producer: Producer, records: Iterable[Outgoing]) -> list[Exception | None]:
    """Send records and wait for all answers, in the order of the records."""
    answers: dict[int, Exception | None] = {}
    count = 0
    for number, record in enumerate(records):
        producer.send(record, lambda error, number=number: answers.__setitem__(number, error))  # type: ignore[misc]  # the loop's variable is bound on purpose
        count += 1
    assert await producer.flush(30) == 0
    return [answers[number] for number in range(count)]


async def fill(bench: Bench, topic: str, count: int, partitions: int = 1) -> None:
    """Write `count` records, taking turns over the partitions; values are "0", "1", ..."""
    records = [Outgoing(topic, None, b"%d" % number, partition=number % partitions) for number in range(count)]
    assert await write(bench.producer(), records) == [None] * count


async def take(consumer: Consumer | Reader, count: int, limit: int = 500) -> list[Record]:
    """Fetch until there are `count` records; fails after `GIVE_UP` seconds."""
    taken: list[Record] = []
    end = asyncio.get_running_loop().time() + GIVE_UP
    while len(taken) < count:
        taken += await consumer.fetch(limit, TURN)
        assert asyncio.get_running_loop().time() < end, f"{len(taken)} of {count} records after {GIVE_UP:g} s"
    return taken


async def turn(consumers: Sequence[Consumer], until: Callable[[], bool]) -> list[list[Record]]:
    """Fetch with all consumers, in turns, until a condition holds; fails after `GIVE_UP` seconds."""
    taken: list[list[Record]] = [[] for _ in consumers]
    end = asyncio.get_running_loop().time() + GIVE_UP
    while not until():
        assert asyncio.get_running_loop().time() < end, f"the condition did not come true within {GIVE_UP:g} s"
        for number, consumer in enumerate(consumers):
            taken[number] += await consumer.fetch(500, TURN / 4)
    return taken


async def nothing(consumer: Consumer | Reader, turns: int = 3) -> None:
    """Make sure that there is nothing to fetch."""
    for _ in range(turns):
        assert list(await consumer.fetch(500, TURN)) == []


def values(records: Iterable[Record]) -> list[bytes | None]:
    """The values of records, in their order."""
    return [record.value for record in records]


def numbers(count: int) -> list[bytes | None]:
    """The values that `fill` wrote."""
    return [b"%d" % number for number in range(count)]

"""The broker in memory: the contract of all brokers, in virtual time, and what it adds for tests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.broker.memory_clients import MemoryConsumer, MemoryProducer
from pipeline.broker.memory_reader import MemoryReader
from pipeline.broker.memory_transactions import MemoryTransactions
from pipeline.broker.topics import TopicSpec
from pipeline.core.ports import Batch
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.devkit.clock import wall
from tests.contracts.broker_bench import PATIENCE, Bench, Opens, Owner, turn
from tests.contracts.broker_contract import BrokerContract
from tests.contracts.transactions_contract import TransactionFacts

SESSION = 10.0


class _MemoryDoomed:
    def __init__(self, broker: MemoryBroker, consumer: MemoryConsumer) -> None:
        self._broker = broker
        self._consumer = consumer

    async def kill(self) -> None:
        self._broker.kill(self._consumer)


class _MemoryDying:
    def __init__(self, transactions: MemoryTransactions) -> None:
        self._transactions = transactions

    async def kill(self) -> None:
        self._transactions.die()


class _MemoryBench:
    def __init__(self) -> None:
        self.cluster = MemoryBroker(clock=time.time, times=MemoryTimes(session=SESSION))
        self._names = itertools.count()

    def name(self) -> str:
        return f"name.{next(self._names)}"

    def producer(self) -> MemoryProducer:
        return self.cluster.producer()

    def consumer(self, group: str, *, impatient: bool = False) -> MemoryConsumer:
        return self.cluster.consumer(group, PATIENCE if impatient else None)

    def reader(self) -> MemoryReader:
        return self.cluster.reader()

    def transactions(self, group: str, transactional_id: str) -> MemoryTransactions:
        return self.cluster.transactions(group, transactional_id)

    @asynccontextmanager
    async def dying(self, group: str, transactional_id: str, batch: Batch) -> AsyncIterator[_MemoryDying]:
        transactions = self.cluster.transactions(group, transactional_id)
        self.cluster.times = MemoryTimes(session=SESSION, transact=1.0)
        transactions.begin(batch, lambda _: None)
        await asyncio.sleep(2.5)
        self.cluster.times = MemoryTimes(session=SESSION)
        yield _MemoryDying(transactions)

    @asynccontextmanager
    async def doomed(self, group: str, topic: str) -> AsyncIterator[_MemoryDoomed]:
        consumer, owner = self.consumer(group), Owner()
        consumer.subscribe([topic], owner)
        await turn([consumer], lambda: bool(owner.owned))
        yield _MemoryDoomed(self.cluster, consumer)

    async def trim(self, partition: Partition, below: int) -> None:
        self.cluster.trim(partition, below)

    async def missed(self) -> None:
        await asyncio.sleep(SESSION)


@asynccontextmanager
async def _opened() -> AsyncIterator[Bench]:
    yield _MemoryBench()


@pytest.mark.virtual
class TestMemory(BrokerContract):
    """The contract, on the broker in memory."""

    @pytest.fixture
    def opened(self) -> Opens:
        """Open a fresh broker."""
        return _opened


@pytest.mark.virtual
class TestTransactions(TransactionFacts):
    """Transactions, on the broker in memory."""

    @pytest.fixture
    def opened(self) -> Opens:
        """Open a fresh broker."""
        return _opened


@pytest.mark.virtual
async def test_acknowledgement_after_a_while() -> None:
    """A record can be read at once, and is acknowledged after the time that the broker was given."""
    broker = MemoryBroker(clock=wall, times=MemoryTimes(acknowledge=5.0))
    await broker.create_topics([TopicSpec("t", 1)])
    answers: list[tuple[float, Exception | None]] = []
    producer, loop = broker.producer(), asyncio.get_running_loop()
    producer.send(Outgoing("t", None, b"x"), lambda error: answers.append((loop.time(), error)))
    assert [record.value for record in broker.records("t")] == [b"x"]
    assert await producer.flush(4.0) == 1
    assert await producer.flush(4.0) == 0
    ((at, failure),) = answers
    assert (round(at, 6), failure) == (5.0, None)


@pytest.mark.virtual
async def test_null_keys_take_turns() -> None:
    """Records without a key go round over the partitions, the same way in every run."""
    broker = MemoryBroker(clock=wall)
    await broker.create_topics([TopicSpec("t", 3)])
    chosen = [broker.append(Outgoing("t", None, b"x")).partition for _ in range(6)]
    assert chosen == [0, 1, 2, 0, 1, 2]


@pytest.mark.virtual
@pytest.mark.parametrize(
    "key,hashed",
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
async def test_known_vectors(key: bytes, hashed: int) -> None:
    """A key's partition is Java's murmur2 of it, made positive, modulo the number of partitions.

    The vectors are those of Apache Kafka's own UtilsTest.
    """
    broker = MemoryBroker(clock=wall)
    await broker.create_topics([TopicSpec("t", 1009)])
    assert broker.append(Outgoing("t", key, b"x")).partition == (hashed & 0x7FFFFFFF) % 1009


@pytest.mark.virtual
async def test_killed_fetch_never_returns() -> None:
    """A killed consumer's fetch hangs, its commits are not heard, and it says that it is not connected."""
    broker = MemoryBroker(clock=wall, times=MemoryTimes(session=SESSION))
    await broker.create_topics([TopicSpec("t", 1)])
    consumer, owner = broker.consumer("g"), Owner()
    consumer.subscribe(["t"], owner)
    await turn([consumer], lambda: bool(owner.owned))
    broker.kill(consumer)
    consumer.commit({Partition("t", 0): Commit(0)})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100 * SESSION):
            await consumer.fetch(1, 1.0)
    assert not consumer.connected()
    await consumer.close({Partition("t", 0): Commit(0)})
    assert await broker.committed("g", ["t"]) == {}


@pytest.mark.virtual
async def test_a_transaction_of_which_nothing_is_heard_is_aborted() -> None:
    """Its producer, which stood still meanwhile, is fenced when it goes on."""
    broker = MemoryBroker(wall, MemoryTimes(transact=6.0, abandon=10.0))
    await broker.create_topics([TopicSpec("t", 1)])
    member = broker.consumer("g")
    member.subscribe(["t"], Owner())
    await member.fetch(1, 0.0)
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    batch = Batch([Outgoing("t", b"k", b"v")], {Partition("t", 0): Commit(0)}, member.membership() or b"")
    broker.transactions("g", "id").begin(batch, ended.set_result)
    assert "fenced" in str(await ended)
    assert (broker.records("t"), broker.group("g").committed) == ([], {})


async def test_a_committed_reader_sees_no_more_than_a_group() -> None:
    """What is open, aborted or a marker is not returned, and an open transaction hides all behind it."""
    broker = MemoryBroker()
    await broker.create_topics([TopicSpec("t", 1)])
    name = Partition("t", 0)
    for value, transaction in ((b"aborted", 1), (b"plain", None), (b"kept", 2), (b"open", 3), (b"behind", None)):
        broker.append(Outgoing("t", None, value, partition=0), transaction)
    broker.end(1, committed=False)
    broker.end(2, committed=True)
    reader = broker.reader(committed=True)
    assert {name: 3} == await reader.ends([name])
    reader.follow(name, 0)
    assert [b"plain", b"kept"] == [one.value for one in await reader.fetch(10, 0.01)]
    assert {name: 3} == reader.positions()
    broker.end(3, committed=True)
    assert [b"open", b"behind"] == [one.value for one in await reader.fetch(10, 0.01)]
    assert await reader.ends([name]) == reader.positions()

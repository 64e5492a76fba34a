"""Transactions of a real cluster: what the contract does not show, and exactly-once stages at work on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.broker import calls, kafka_transactions
from pipeline.broker.config import GroupProtocol, KafkaConfig
from pipeline.broker.kafka import open_consumer, open_producer
from pipeline.broker.kafka_transactions import KafkaTransactions, open_transactions
from pipeline.broker.topics import TopicSpec
from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import Batch, NotCommitted
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.devkit.kafka import Broker
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.runner import Kit, Runner
from tests.broker.forgetful import Forgetful, forgetful
from tests.broker.kafka_bench import KafkaBench, kafka_bench
from tests.contracts.broker_bench import Opens, Owner, nothing, take, turn, values, write
from tests.contracts.transactions_contract import Site, result
from tests.runtime.world import END, OUT, JsonCodec, Note, Script, World

BOTH = pytest.mark.parametrize("protocol", ["consumer", "classic"])
NOWHERE = KafkaConfig({"bootstrap.servers": "127.0.0.1:1"})


def callers(transactional_id: str) -> int:
    """How many clients of an id are not closed yet."""
    return sum(thread.name == f"kafka {transactional_id} calls" for thread in threading.enumerate())


async def test_refused_configuration() -> None:
    """A property that librdkafka does not know is an error that names its variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_NO_SUCH_THING cannot be used"):
        KafkaTransactions(KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"}), "g", "i")


async def test_no_broker_at_all() -> None:
    """Without a broker a batch waits; it does not take place when the adapter is closed, which takes no time."""
    ends: list[Exception | None] = []
    async with asyncio.timeout(20), open_transactions(NOWHERE, "g", "i") as transactions:
        transactions.begin(Batch([Outgoing("t", None, b"x")], {Partition("t", 0): Commit(1)}, b"member"), ends.append)
        assert not transactions.wait(0.2)
        assert ends == []
    while not ends:
        await asyncio.sleep(0.01)
    assert isinstance(ends[0], NotCommitted)


@pytest.mark.kafka
async def test_a_long_outage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """While there is no broker the client is replaced now and then, none is left behind, and the log says why."""
    monkeypatch.setattr(kafka_transactions, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(kafka_transactions, "NOTICE_SECONDS", 0.5)
    async with asyncio.timeout(30), open_transactions(NOWHERE, "g", "outage") as transactions:
        first = transactions._writing._client
        transactions.begin(Batch([], {Partition("t", 0): Commit(1)}, b"member"), lambda _: None)
        while transactions._writing._client is first:
            await asyncio.sleep(0.01)
        while callers("outage") > 1:
            await asyncio.sleep(0.01)
        while "now for init_transactions" not in capsys.readouterr().out:
            await asyncio.sleep(0.01)


class _Meddled:
    """A client whose commits are answered by an error, after or instead of what they do."""

    def __init__(self, client: Producer, *, commits: bool) -> None:
        self._client = client
        self._commits = commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def commit_transaction(self, seconds: float) -> None:
        if self._commits:
            self._client.commit_transaction(seconds)
        raise KafkaException(KafkaError(KafkaError._STATE, "the answer was lost"))


@pytest.mark.kafka
class TestUnheard:
    """A commit whose answer is lost."""

    @pytest.fixture(params=["consumer", "classic"])
    def opened(self, kafka: Broker, request: pytest.FixtureRequest) -> Opens:
        """Open a bench on the shared broker."""
        return lambda: kafka_bench(kafka.bootstrap_servers, request.param)

    @pytest.mark.parametrize("commits", [True, False])
    async def test_what_became_of_it_is_found_out(self, opened: Opens, commits: bool) -> None:
        """The group's offsets tell whether it took place; what follows goes on as if nothing had been."""
        async with opened() as bench:
            site = await Site.make(bench)
            transactions = bench.transactions(site.group, site.id)
            assert isinstance(transactions, KafkaTransactions)
            assert await result(transactions, site.batch("a")) is None
            writing = transactions._writing
            writing._client = _Meddled(writing._client, commits=commits)  # type: ignore[assignment]  # it stands in
            error = await result(transactions, site.batch("b", offset=2, metadata="map"))
            assert (error is None) == commits
            if not commits:
                assert isinstance(error, NotCommitted)
                assert await result(transactions, site.batch("b", offset=2, metadata="map")) is None
            assert await result(transactions, site.batch("c", offset=3)) is None
            assert await site.seen(3) == [b"a", b"b", b"c"]
            assert await site.at() == {Partition(site.source, 0): 3}


@asynccontextmanager
async def hanging(kafka: Broker) -> AsyncIterator[tuple[Site, Forgetful, KafkaTransactions]]:
    """A site, and transactions whose next call of `send_offsets_to_transaction` hangs until a connection is cut."""
    servers = kafka.bootstrap_servers
    async with kafka_bench(servers, "consumer") as bench, forgetful(servers) as coordinator:
        site = await Site.make(bench)
        coordinator.forgets = 3
        config = KafkaConfig({"bootstrap.servers": coordinator.servers}, "consumer")
        async with open_transactions(config, site.group, site.id) as transactions:
            yield site, coordinator, transactions


@pytest.mark.kafka
class TestHanging:
    """A coordinator that is not known for a moment, after which the client hangs though the coordinator is known."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calls, "PIECE_SECONDS", 1.0)
        monkeypatch.setattr(kafka_transactions, "NOTICE_SECONDS", 1.0)
        monkeypatch.setattr(kafka_transactions, "CLOSE_SECONDS", 1.0)

    async def test_another_client_takes_its_place(self, kafka: Broker, capsys: pytest.CaptureFixture[str]) -> None:
        """The batch has not taken place and can be tried again; the log says what was waited for."""
        async with hanging(kafka) as (site, coordinator, transactions):
            error = await result(transactions, site.batch("a", offset=3))
            assert isinstance(error, NotCommitted)
            assert str(error).startswith("send_offsets_to_transaction did not come back")
            assert coordinator.forgets == 0
            assert "now for send_offsets_to_transaction" in capsys.readouterr().out
            assert await result(transactions, site.batch("b")) is None
            assert await site.at() == {Partition(site.source, 0): 1}

    async def test_what_comes_back_late_does_nothing(self, kafka: Broker) -> None:
        """A client that was given up and goes on writes neither into its own batch nor into a later one, and ends."""
        async with hanging(kafka) as (site, coordinator, transactions):
            assert isinstance(await result(transactions, site.batch("a", offset=3)), NotCommitted)
            assert await result(transactions, site.batch("b")) is None
            assert callers(site.id) == 2
            coordinator.cut()
            async with asyncio.timeout(30):
                while callers(site.id) > 1:
                    await asyncio.sleep(0.01)
            assert await site.at() == {Partition(site.source, 0): 1}
            assert await result(transactions, site.batch("c", offset=2)) is None
            assert await site.seen(2) == [b"b", b"c"]

    async def test_all_connections_are_lost(self, kafka: Broker) -> None:
        """The next batch finds its way by itself: nothing hangs."""
        async with hanging(kafka) as (site, coordinator, transactions):
            coordinator.forgets = 0
            first = transactions._writing._client
            assert await result(transactions, site.batch("a")) is None
            coordinator.cut()
            assert await result(transactions, site.batch("b", offset=2)) is None
            assert transactions._writing._client is first

    async def test_closing(self, kafka: Broker, capsys: pytest.CaptureFixture[str]) -> None:
        """Transactions whose client hangs can be closed all the same: the batch does not take place."""
        ends: list[Exception | None] = []
        async with hanging(kafka) as (site, coordinator, transactions):
            transactions.begin(site.batch("a", offset=3), ends.append)
            while coordinator.forgets:
                await asyncio.sleep(0.01)
            await transactions.close()
            while not ends:
                await asyncio.sleep(0.01)
            assert str(ends[0]) == "the stage is being closed"
            assert "action=left_unheard" in capsys.readouterr().out
            assert await site.at() == {}
            coordinator.cut()
            while callers(site.id):
                await asyncio.sleep(0.01)
            assert await site.seen(0) == []


@dataclass
class _Worker:
    """A runner of a stage, in its own clients."""

    config: KafkaConfig
    bound: Plan
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self, seconds: float) -> None:
        """Open and run it."""
        opened = self.stack.enter_async_context
        name = f"{self.bound.group}.{uuid4().hex}"
        kit = Kit(
            await opened(open_consumer(self.config, self.bound.group)),
            await opened(open_producer(self.config)),
            JsonCodec(),
            time.time,
            transactions=await opened(open_transactions(self.config, self.bound.group, name)),
        )
        self.runner = Runner(self.bound, Script(seconds), kit)
        self.task = asyncio.create_task(self.runner.run())

    async def stop(self) -> None:
        """Let it leave."""
        self.runner.stop()
        await self.task
        await self.stack.aclose()


@asynccontextmanager
async def chain(servers: str, protocol: GroupProtocol) -> AsyncIterator[tuple[KafkaBench, Plan, Plan]]:
    """A bench with the topics of an exactly-once stage, and of a plain one that reads what it writes."""
    async with kafka_bench(servers, protocol) as bench:
        assert isinstance(bench, KafkaBench)
        prefix = uuid4().hex[:8]
        first = plan(World.stage(delivery="exactly once", concurrency=16), prefix)
        second = plan(World.stage(OUT, output=END, name="plain"), prefix)
        names = [*first.topics, *second.topics, first.dead_letters, second.dead_letters, first.failures]
        await bench.cluster.create_topics(TopicSpec(name, 4) for name in [*names, f"{prefix}.end"])
        yield bench, first, second


async def until(holds: Callable[[], Any]) -> None:
    """Wait for something, fifty seconds at most."""
    for _ in range(500):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came to hold")


@pytest.mark.kafka
class TestAtWork:
    """Runners on the real broker."""

    @pytest.mark.within(120)
    @BOTH
    async def test_workers_come_and_go(self, kafka: Broker, protocol: GroupProtocol) -> None:
        """While workers join and leave each record is answered once, and the lag of both stages reaches 0."""
        async with chain(kafka.bootstrap_servers, protocol) as (bench, first, second):
            source, out = next(iter(first.sources)), first.output_topic(None)
            records = [
                Outgoing(source, b"%d" % number, Note(text=str(number)).model_dump_json().encode(), (), number % 4)
                for number in range(2000)
            ]
            workers = [_Worker(bench.config, first) for _ in range(3)]
            await workers[0].start(0.02)
            plain = _Worker(bench.config, second)
            await plain.start(0.0)
            for number in range(0, 2000, 250):
                assert await write(bench.producer(), records[number : number + 250]) == [None] * 250
                if number in {250, 750}:
                    await workers[1 + number // 750].start(0.02)
                if number == 1250:
                    await workers[0].stop()
                await asyncio.sleep(0.4)
            for bound in (first, second):
                await until(lambda bound=bound: self._caught_up(bench, bound))  # type: ignore[misc]  # bound on purpose
            for worker in (*workers[1:], plain):
                await worker.stop()
            reader = bench.consumer(bench.name())
            reader.subscribe([out], Owner())
            answers = values(await take(reader, 2000))
            assert len(set(answers)) == 2000
            await nothing(reader)

    @staticmethod
    async def _caught_up(bench: KafkaBench, bound: Plan) -> bool:
        return not any((await bench.cluster.lag(bound.group, bound.topics)).values())


@pytest.mark.kafka
@BOTH
async def test_who_a_member_is(kafka: Broker, protocol: GroupProtocol) -> None:
    """A member is known once it owns something and was asked; after it has left there is nobody to commit as."""
    async with kafka_bench(kafka.bootstrap_servers, protocol) as bench:
        topic = bench.name()
        await bench.cluster.create_topics([TopicSpec(topic, 1)])
        member, owner = bench.consumer(bench.name()), Owner()
        assert member.membership() is None
        member.subscribe([topic], owner)
        await turn([member], lambda: bool(owner.owned) and member.membership() is not None)

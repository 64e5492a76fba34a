"""The consumer of a real cluster: what the contract does not show."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from importlib.metadata import files
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition, cimpl

from pipeline.broker import kafka_consumer
from pipeline.broker.admin import Admin
from pipeline.broker.config import GroupProtocol, KafkaConfig
from pipeline.broker.kafka import open_consumer, open_producer
from pipeline.broker.kafka_consumer import KafkaConsumer
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Commit, Outgoing, Partition, Record
from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from tests.broker.kafka_bench import kafka_bench
from tests.contracts.broker_bench import (
    TURN,
    Bench,
    Owner,
    fill,
    new_topic,
    nothing,
    numbers,
    take,
    turn,
    values,
)

BOTH = pytest.mark.parametrize("protocol", ["consumer", "classic"])


async def test_refused_configuration() -> None:
    """A property that librdkafka does not know is an error that names its variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_NO_SUCH_THING cannot be used"):
        KafkaConsumer(KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"}), "g")


async def test_no_broker_at_all() -> None:
    """Without a broker a consumer waits: it is not connected, fetches return empty, and closing takes no time."""
    async with asyncio.timeout(20), open_consumer(KafkaConfig({"bootstrap.servers": "127.0.0.1:1"}), "g") as consumer:
        consumer.subscribe(["t"], Owner())
        await nothing(consumer, turns=2)
        assert not consumer.connected()


@pytest.mark.kafka
class TestOnABroker:
    """Facts that need the real thing."""

    async def test_header_names_that_are_not_utf8(self, kafka: Broker) -> None:
        """A record whose header names are not UTF-8 comes without headers, and does not stop the others."""
        async with kafka_bench(kafka.bootstrap_servers, "consumer") as bench:
            topic = await new_topic(bench)
            _send_raw_headers(kafka.bootstrap_servers, topic, [b"fine", b"\xff\xfe", b"fine"])
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            records = await take(consumer, 3)
            assert [one.headers for one in records] == [(("fine", b"1"),), (), (("fine", b"1"),)]
            assert values(records) == [b"value"] * 3

    async def test_transaction_markers(self, kafka: Broker) -> None:
        """Records of an aborted transaction are not read, and the position steps over the markers to the very end."""
        async with kafka_bench(kafka.bootstrap_servers, "consumer") as bench:
            topic, group = await new_topic(bench), bench.name()
            name = Partition(topic, 0)
            await asyncio.to_thread(_two_transactions, kafka.bootstrap_servers, topic)
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            assert values(await take(consumer, 2)) == [b"kept 0", b"kept 1"]
            end = (await bench.cluster.end_offsets([topic]))[name]
            assert end == 6
            await turn([consumer], lambda: consumer.positions([name]) == {name: end})
            await consumer.close({name: Commit(end)})
            assert await bench.cluster.lag(group, [topic]) == {name: 0}

    @BOTH
    async def test_members_come_and_go_in_flow(self, kafka: Broker, protocol: GroupProtocol) -> None:
        """While records flow members join and leave: every record is handled, in order, and exactly once.

        Each member commits what it has handled when a partition leaves it, and only then.
        """
        async with kafka_bench(kafka.bootstrap_servers, protocol) as bench, _flow(bench) as (topic, sent):
            group, handled = bench.name(), list[Record]()
            first, second, third = (_Member(bench, group, topic, handled) for _ in range(3))
            await first.until(lambda: len(first.owner.owned) == 6)
            second.start()
            await first.until(lambda: len(second.owner.owned) == 3)
            third.start()
            await first.until(lambda: len(third.owner.owned) == len(second.owner.owned) == 2)
            await second.leave()
            await first.until(lambda: len(third.owner.owned) == 3)
            await first.leave()
            await third.until(lambda: len(third.owner.owned) == 6)
            total = sent.stop()
            await third.until(lambda: len(handled) >= total)
            await third.leave()
        by_partition = {number: [one.offset for one in handled if one.partition == number] for number in range(6)}
        assert sum(map(len, by_partition.values())) == total
        for offsets in by_partition.values():
            assert offsets == list(range(len(offsets)))

    @BOTH
    async def test_wishes_in_the_middle_of_a_rebalance(self, kafka: Broker, protocol: GroupProtocol) -> None:
        """A partition that was paused inside `assigned` gives nothing after the fetch that brought it."""
        async with kafka_bench(kafka.bootstrap_servers, protocol) as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 500)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            taken = list[Record]()
            while not owner.owned:
                taken += await consumer.fetch(5, TURN)
            consumer.pause(list(owner.owned))
            await nothing(consumer)
            consumer.resume(list(owner.owned))
            assert values(taken + await take(consumer, 500 - len(taken))) == numbers(500)

    @BOTH
    async def test_what_leaves_before_it_is_known_where_it_stands_flows_when_it_is_back(
        self, kafka: Broker, protocol: GroupProtocol, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Until a coordinator says where a partition stands it is paused; that must not outlast its being elsewhere."""
        async with kafka_bench(kafka.bootstrap_servers, protocol) as bench:
            topic, group = await new_topic(bench, 2), bench.name()
            await fill(bench, topic, 10, 2)
            monkeypatch.setattr(kafka_consumer, "Consumer", _Deaf)
            first = bench.consumer(group)
            monkeypatch.undo()
            first.subscribe([topic], owner := Owner())
            await turn([first], lambda: len(first._member.unread) == 2)  # type: ignore[attr-defined]  # the real one
            second = bench.consumer(group)
            second.subscribe([topic], Owner())
            await turn([first, second], lambda: len(first._member.unread) == 1)  # type: ignore[attr-defined]  # as above
            monkeypatch.setattr(_Deaf, "deaf", False)
            await second.close({})
            assert set(values(await take(first, 10))) == set(numbers(10))
            assert len(owner.owned) == 2

    @pytest.mark.within(120)
    @BOTH
    async def test_broker_that_goes_and_comes(self, own_kafka: EmbeddedKafkaConfig, protocol: GroupProtocol) -> None:
        """A broker may be killed and come back: both sides wait, and nothing is lost, refused or raised.

        Who is in the group is an error meanwhile, and can be asked again after it.
        """
        async with embedded_kafka(own_kafka) as broker, kafka_bench(broker.bootstrap_servers, protocol) as bench:
            topic, group = await new_topic(bench), bench.name()
            await fill(bench, topic, 10)
            consumer, owner, producer = bench.consumer(group), Owner(), bench.producer()
            consumer.subscribe([topic], owner)
            taken = await take(consumer, 10)
            assert broker.process is not None
            await broker.process.kill()
            answers: list[Exception | None] = []
            producer.send(Outgoing(topic, None, b"while it was away"), answers.append)
            consumer.commit({Partition(topic, 0): Commit(5)})
            await turn([consumer], lambda: not consumer.connected())
            cluster = cast(Admin, bench.cluster)
            for _ in range(3):
                with pytest.raises(KafkaException):
                    await cluster.members(group, TURN)
                await nothing(consumer, 1)
            assert answers == []
            await broker.restart()
            while not (consumer.connected() and answers):
                taken += await consumer.fetch(500, TURN)
            assert answers == [None]
            while b"while it was away" not in values(taken):
                taken += await consumer.fetch(500, TURN)
            assert set(values(taken)) == {*numbers(10), b"while it was away"}
            while (name := consumer.name()) not in await _members(cluster, group):
                await nothing(consumer, 1)
            assert name
            await consumer.close({Partition(topic, 0): Commit(11)})
            assert await bench.cluster.lag(group, [topic]) == {Partition(topic, 0): 0}

    @pytest.mark.within(120)
    async def test_close_while_the_broker_is_away(self, own_kafka: EmbeddedKafkaConfig) -> None:
        """Without a broker a member gives its last commit up after some seconds, and is gone."""
        async with embedded_kafka(own_kafka) as broker, kafka_bench(broker.bootstrap_servers, "consumer") as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 10)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            await take(consumer, 10)
            assert broker.process is not None
            await broker.process.kill()
            async with asyncio.timeout(30):
                await consumer.close({Partition(topic, 0): Commit(10)})
            assert owner.was_revoked + owner.was_lost == [Partition(topic, 0)]


class _Sent:
    """Counts what flows, and ends it."""

    def __init__(self) -> None:
        self.count = 0
        self.flowing = True

    def stop(self) -> int:
        self.flowing = False
        return self.count


@asynccontextmanager
async def _flow(bench: Bench) -> AsyncIterator[tuple[str, _Sent]]:
    """Send some 2,000 records a second to a topic of six partitions."""
    topic, sent = await new_topic(bench, partitions=6), _Sent()

    async def feed() -> None:
        async with open_producer(bench.config) as producer:  # type: ignore[attr-defined]  # this bench has one
            for number in itertools.cycle(range(6)):
                if not sent.flowing:
                    return
                producer.send(Outgoing(topic, None, b"x", partition=number), lambda error: None)
                sent.count += 1
                if number == 5:
                    await asyncio.sleep(0.003)

    task = asyncio.create_task(feed())
    yield topic, sent
    sent.stop()
    await task


async def _members(cluster: Admin, group: str) -> Collection[str]:
    """Who is in the group, nobody while its coordinator loads."""
    with suppress(KafkaException):
        return await cluster.members(group)
    return ()


class _Deaf(Consumer):
    """A client that no coordinator answers while it is asked where the group stands."""

    deaf = True

    def committed(self, *args: Any, **named: Any) -> list[TopicPartition]:
        """Hear nothing, or look up."""
        if self.deaf:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return super().committed(*args, **named)


class _Member:
    """A member with a task of its own, which handles each record as it comes."""

    def __init__(self, bench: Bench, group: str, topic: str, handled: list[Record]) -> None:
        self.owner = Owner()
        self._consumer = bench.consumer(group)
        self._topic = topic
        self._handled = handled
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._consumer.subscribe([self._topic], self.owner)
        self._task = asyncio.create_task(self._work())

    async def until(self, condition: Callable[[], bool]) -> None:
        if self._task is None:
            self.start()
        async with asyncio.timeout(40):
            while not condition():
                await asyncio.sleep(0.01)

    async def leave(self) -> None:
        await self._consumer.close(self.owner.offsets)
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while self._consumer._leaving is None:  # type: ignore[attr-defined]  # the real one
            records = await self._consumer.fetch(100, TURN)
            self._handled += records
            self.owner.read(records)
            await asyncio.sleep(0)


def _two_transactions(servers: str, topic: str) -> None:
    """Write two records that are committed and two that are aborted."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic})
    producer.init_transactions(30)
    for kind in ("kept", "dropped"):
        producer.begin_transaction()
        for number in range(2):
            producer.produce(topic, f"{kind} {number}".encode(), partition=0)
        producer.flush(30)
        if kind == "kept":
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def _send_raw_headers(servers: str, topic: str, names: list[bytes]) -> None:
    """Write a record for each header name with librdkafka itself: the Python client takes only text for a name."""
    found = [path for path in files("confluent-kafka") or [] if "librdkafka" in path.name]
    rdkafka = ctypes.CDLL(str(found[0].locate()) if found else cimpl.__file__)
    rdkafka.rd_kafka_conf_new.restype = rdkafka.rd_kafka_new.restype = ctypes.c_void_p
    configuration, reason = ctypes.c_void_p(rdkafka.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
    rdkafka.rd_kafka_conf_set(configuration, b"bootstrap.servers", servers.encode(), reason, ctypes.c_size_t(512))
    client = ctypes.c_void_p(rdkafka.rd_kafka_new(0, configuration, reason, ctypes.c_size_t(512)))
    text, size, tag = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    for name in names:
        # rd_kafka_vtype_t: 1 is the topic, 4 the value and its size, 9 a header's name, value and size, 0 the end
        value = (tag(4), text(b"value"), size(5))
        header = (tag(9), text(name), text(b"1"), size(1))
        assert rdkafka.rd_kafka_producev(client, tag(1), text(topic.encode()), *value, *header, tag(0)) == 0
    assert rdkafka.rd_kafka_flush(client, tag(30_000)) == 0
    rdkafka.rd_kafka_destroy(client)

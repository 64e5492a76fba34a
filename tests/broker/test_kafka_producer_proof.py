"""The producer's distrust of partitions that have not proved themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka import Producer as Client
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, though not in its stubs

from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka import KafkaProducer, open_producer
from pipeline.core.record import Outgoing
from pipeline.devkit.kafka import Broker
from tests.broker.kafka_bench import kafka_bench
from tests.contracts.broker_bench import write

Heard = Callable[[KafkaError | None, Message], None]


@dataclass
class FakeClient:
    """Takes records up to `room`, and acknowledges when it is told to."""

    room: int = 1000
    open: deque[tuple[str, int, bytes, Heard]] = field(default_factory=deque)

    def produce(self, topic: str, value: bytes, key: bytes | None, partition: int, heard: Heard) -> None:
        """Take a record."""
        if len(self.open) >= self.room:
            raise BufferError
        self.open.append((topic, partition, value, heard))

    def poll(self, timeout: float) -> None:
        """Nothing happens by itself."""

    def close(self) -> None:
        """Nothing is left to do."""

    def purge(self) -> None:
        """Give everything up."""
        while self.open:
            self.answer(error=KafkaError._PURGE_QUEUE)

    @property
    def values(self) -> list[bytes]:
        """What is under way."""
        return [value for _, _, value, _ in self.open]

    def answer(self, *, offset: int | None = 7, error: int | None = None, partition: int | None = None) -> None:
        """Answer the oldest record."""
        topic, chosen, _, heard = self.open.popleft()
        where = chosen if partition is None else partition
        message = Message(topic=topic, partition=where, offset=-1001 if offset is None else offset)
        heard(None if error is None else KafkaError(error), message)


@asynccontextmanager
async def producing() -> AsyncIterator[tuple[KafkaProducer, FakeClient, list[tuple[bytes, bool]], Callable[..., None]]]:
    """A producer with a fake client, what was reported, and a short way to send."""
    producer, client = KafkaProducer(KafkaConfig({"bootstrap.servers": "127.0.0.1:1"})), FakeClient()
    producer._client.close()
    producer._client = cast(Client, client)
    ended: list[tuple[bytes, bool]] = []

    def send(value: bytes, partition: int | None = 0) -> None:
        record = Outgoing("t", b"k", value, partition=partition)
        producer.send(record, lambda error: ended.append((value, error is None)))
        producer._hand_over()  # as the loop does at the end of its turn

    yield producer, client, ended, send
    client.purge()
    await producer.close()


async def test_first_record_goes_alone() -> None:
    """Until a partition's first record has an offset the others wait behind it; then they follow, in order."""
    async with producing() as (_, client, ended, send):
        for value in (b"1", b"2", b"3"):
            send(value)
        send(b"elsewhere", 1)
        assert client.values == [b"1", b"elsewhere"]
        client.answer()
        assert ended == [(b"1", True)]
        assert client.values == [b"elsewhere", b"2", b"3"]
        send(b"4")
        assert client.values == [b"elsewhere", b"2", b"3", b"4"]


async def test_acknowledgement_without_an_offset() -> None:
    """A first record that was acknowledged without an offset is sent again, unheard, and nothing overtakes it."""
    async with producing() as (producer, client, ended, send):
        send(b"1")
        send(b"2")
        client.answer(offset=None)
        client.answer(offset=None)
        assert ended == []
        assert client.values == [b"1"]
        client.answer()
        client.answer()
        assert ended == [(b"1", True), (b"2", True)]
        assert await producer.flush(0) == 0


async def test_first_record_that_fails() -> None:
    """Where the first record is refused the next one has to prove the partition."""
    async with producing() as (_, client, ended, send):
        for value in (b"1", b"2", b"3"):
            send(value)
        client.answer(error=KafkaError.MSG_SIZE_TOO_LARGE)
        assert client.values == [b"2"]
        client.answer()
        assert client.values == [b"3"]
        assert ended == [(b"1", False), (b"2", True)]


async def test_partition_chosen_by_key() -> None:
    """Where the key chooses the partition nothing waits, and each acknowledgement needs an offset."""
    async with producing() as (_, client, ended, send):
        send(b"1", None)
        send(b"2", None)
        assert client.values == [b"1", b"2"]
        client.answer(partition=3, offset=None)
        client.answer(partition=3)
        assert ended == [(b"2", True)]
        assert client.values == [b"1"]
        client.answer(partition=3)
        send(b"3", 3)
        send(b"4", 3)
        assert client.values == [b"3", b"4"]


async def test_key_does_not_open_the_way_for_others() -> None:
    """A record that came to a partition by its key does not let others overtake those that wait there."""
    async with producing() as (_, client, _, send):
        send(b"by key", None)
        send(b"1")
        send(b"2")
        client.answer(partition=0)
        send(b"3")
        assert client.values == [b"1"]
        client.answer()
        assert client.values == [b"2", b"3"]


async def test_refusal_ends_the_trust() -> None:
    """After a refusal a partition has to prove itself again: its topic may be another one now."""
    async with producing() as (_, client, _, send):
        send(b"1")
        client.answer()
        send(b"2")
        client.answer(error=KafkaError.UNKNOWN_TOPIC_OR_PART)
        send(b"3")
        send(b"4")
        assert client.values == [b"3"]


async def test_acknowledgement_without_an_offset_ends_the_trust() -> None:
    """A proved partition that takes a record without an offset was made anew: the record is sent again, alone."""
    async with producing() as (_, client, ended, send):
        send(b"1")
        client.answer()
        send(b"2")
        client.answer(offset=None)
        send(b"3")
        assert client.values == [b"2"]
        client.answer()
        client.answer()
        assert ended == [(b"1", True), (b"2", True), (b"3", True)]


async def test_full_queue_and_first_records() -> None:
    """Records that found no room and records that wait behind a first one all come in order."""
    async with producing() as (producer, client, ended, send):
        client.room = 2
        for number in range(6):
            send(b"%d" % number, number % 2)
        send(b"6", 2)
        while client.open:
            client.answer()
            producer._serve()
        assert [value for value, _ in ended if int(value) % 2 == 0 and value != b"6"] == [b"0", b"2", b"4"]
        assert [value for value, _ in ended if int(value) % 2 == 1] == [b"1", b"3", b"5"]
        assert len(ended) == 7
        assert all(fine for _, fine in ended)


@pytest.mark.kafka
async def test_topics_that_have_just_come_up(kafka: Broker) -> None:
    """Nothing is lost where records are sent while the broker still brings the topic up: by partition or by key."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    patient = KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers})
    async with kafka_bench(kafka.bootstrap_servers, "consumer") as bench, open_producer(patient) as producer:
        for number in range(10):
            topic = bench.name()
            admin.create_topics([NewTopic(topic, 12, -1)])[topic].result(20)
            by_key = number % 2 == 0
            records = [Outgoing(topic, b"%d" % n, b"v", partition=None if by_key else n % 12) for n in range(60)]
            assert await write(producer, records) == [None] * 60
            total = sum((await bench.cluster.end_offsets([topic])).values())
            assert total >= 60 if by_key else total == 60
            await bench.cluster.delete_topics([topic])

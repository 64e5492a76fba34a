"""The producer of a real cluster: what the contract does not show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.broker import kafka_producer as module
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka import KafkaProducer, open_producer
from pipeline.broker.verdicts import NotDelivered
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Outgoing

pytestmark = pytest.mark.local

NOWHERE = KafkaConfig({"bootstrap.servers": "127.0.0.1:1"})


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    """The address of librdkafka's own test broker, which makes every topic that is asked for."""
    owner = Producer({"test.mock.num.brokers": 1})
    metadata = owner.list_topics(timeout=10)
    yield ",".join(f"{one.host}:{one.port}" for one in metadata.brokers.values())
    owner.flush(0)


async def test_full_queue(servers: str) -> None:
    """What the client's queue has no room for waits its turn: nothing is lost and nothing overtakes."""
    config = KafkaConfig({"bootstrap.servers": servers, "queue.buffering.max.messages": "10"})
    order: list[int] = []
    async with open_producer(config) as producer:
        for number in range(500):
            record = Outgoing("full", b"k", b"%d" % number, partition=0)
            producer.send(record, lambda error, number=number: order.append(-1 if error else number))  # type: ignore[misc]  # bound on purpose
        assert await producer.flush(30) == 0
    assert order == list(range(500))
    assert read(servers, "full", 500) == [b"%d" % number for number in range(500)]


def read(servers: str, topic: str, count: int) -> list[bytes | None]:
    """Read the first records of partition 0."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    while len(values) < count:
        messages = consumer.consume(count, 10)
        assert messages
        values += [message.value() for message in messages]
    consumer.close()
    return values


async def test_overflow_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the overflow is full a record is refused: later, in `delivered`, and with a reason."""
    monkeypatch.setattr(module, "WAITING_RECORDS", 5)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    config = KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": "3"})
    producer, answers = KafkaProducer(config), list[Exception | None]()
    for _ in range(10):
        producer.send(Outgoing("t", None, b"x"), answers.append)
    assert answers == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [str(error) for error in answers] == ["t: 5 records wait to be sent already"] * 2
    assert await producer.flush(0) == 8
    await producer.close()
    assert len(answers) == 10
    assert all(isinstance(error, NotDelivered) for error in answers)


async def test_close_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that never reached its broker closes in bounded time, and says of every record that it is not sent."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    answers: list[Exception | None] = []
    async with open_producer(NOWHERE) as producer:
        producer.send(Outgoing("t", None, b"x", partition=0), answers.append)
    assert [type(error) for error in answers] == [NotDelivered]
    await producer.close()


async def test_send_after_close() -> None:
    """A record that is sent to a closed producer is refused in `delivered`."""
    producer, answers = KafkaProducer(NOWHERE), list[Exception | None]()
    await producer.close()
    producer.send(Outgoing("t", None, b"x"), answers.append)
    await asyncio.sleep(0)
    assert [str(error) for error in answers] == ["t: the producer is closed"]
    assert await producer.flush(0) == 0


async def test_callback_that_raises(servers: str) -> None:
    """An exception in one `delivered` goes to the loop's handler; the others are called all the same."""
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
    error, answers = ZeroDivisionError("broken"), list[Exception | None]()

    def broken(_: Exception | None) -> None:
        raise error

    async with open_producer(KafkaConfig({"bootstrap.servers": servers})) as producer:
        for delivered in (broken, answers.append, broken, answers.append):
            producer.send(Outgoing("raises", None, b"x"), delivered)
        assert await producer.flush(30) == 0
    assert answers == [None, None]
    assert seen == [error, error]


async def test_acknowledged_without_a_flush(servers: str) -> None:
    """Acknowledgements come by themselves: nobody has to flush."""
    async with open_producer(KafkaConfig({"bootstrap.servers": servers})) as producer:
        for _ in range(3):
            done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            producer.send(Outgoing("alone", None, b"x"), done.set_result)
            assert await asyncio.wait_for(done, 20) is None


async def test_refused_configuration() -> None:
    """A property that librdkafka does not know is an error that names its variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_NO_SUCH_THING cannot be used"):
        KafkaProducer(KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"}))

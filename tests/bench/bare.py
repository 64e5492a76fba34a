"""The bare loop: the least code that moves records from topic to topic and loses none. `python -m tests.bench.bare`.

With Avro it does what our codec and payloads do, in plain calls. No headers, no ids, no order but the partition's, no
retries: what is left is the floor under any runtime on this client.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import load_schema

from pipeline.core.payloads import RetrievedContext
from pipeline.resources import resource
from tests.bench.meter import Meter
from tests.bench.order import NOUN, Order, new_group, received

BATCH = 500
COMMIT_SECONDS = 0.1
_HEAD = 10


class Epoch:
    """The records between two commits. Their offsets may be committed when all of them are acknowledged."""

    __slots__ = ("acknowledged", "offsets", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.offsets: dict[int, int] = {}

    def delivered(self, error: KafkaError | None, _: Message) -> None:
        """Count an acknowledgement: the delivery report of each record."""
        if error is not None:
            raise RuntimeError(error.str())
        self.acknowledged += 1


class Epochs:
    """All epochs that are not committed yet, oldest first."""

    def __init__(self, topic: str) -> None:
        self.current = Epoch()
        self._topic = topic
        self._open: deque[Epoch] = deque((self.current,))
        self._done = 0
        self._commit_at = 0.0

    def done(self) -> int:
        """Count the acknowledged records."""
        return self._done + sum(epoch.acknowledged for epoch in self._open)

    def commit(self, consumer: Consumer) -> None:
        """Commit what is acknowledged, at most ten times a second."""
        if time.perf_counter() > self._commit_at:
            self._commit_at = time.perf_counter() + COMMIT_SECONDS
            if ready := self.turn():
                consumer.commit(offsets=ready, asynchronous=True)

    def close(self, consumer: Consumer) -> None:
        """Commit all that is acknowledged, and leave the group."""
        if ready := self.turn():
            consumer.commit(offsets=ready, asynchronous=False)
        consumer.close()

    def turn(self) -> list[TopicPartition]:
        """Begin a new epoch; returns the offsets up to which all is acknowledged."""
        self.current = Epoch()
        self._open.append(self.current)
        offsets: dict[int, int] = {}
        while self._open[0].acknowledged == self._open[0].sent and self._open[0] is not self.current:
            epoch = self._open.popleft()
            self._done += epoch.acknowledged
            offsets.update(epoch.offsets)
        return [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]


def loop(order: Order, change: Callable[[bytes], bytes] | None) -> None:
    """Move records until enough is measured."""
    consumer, producer, epochs = _consumer(order), _producer(order), Epochs(order.input)
    meter, topic = Meter(order.seconds, order.available), order.output
    while not meter.note(epochs.done()):
        first = consumer.poll(0.1)
        if first is not None:
            messages = consumer.consume(BATCH, 0)
            messages.insert(0, first)
            epoch = epochs.current
            delivered, offsets = epoch.delivered, epoch.offsets
            epoch.sent += len(messages)
            for message in messages:
                value = message.value()
                if change is not None and value is not None:
                    value = change(value)
                producer.produce(topic, value, message.key(), on_delivery=delivered)
                offsets[message.partition()] = message.offset() + 1  # type: ignore[index,operator]  # records have both
        producer.poll(0)
        epochs.commit(consumer)
    producer.flush()
    epochs.close(consumer)
    meter.sample(epochs.done()).write(order.result)


def through_avro() -> Callable[[bytes], bytes]:
    """Make the plain form of decode, validate and encode."""
    schema = parse_schema(load_schema(str(resource("schemas") / NOUN / "v1.avsc")))
    validate = RetrievedContext.model_validate

    def change(value: bytes) -> bytes:
        stream = io.BytesIO(value)
        stream.seek(_HEAD)
        payload = validate(schemaless_reader(stream, schema, None))
        written = io.BytesIO()
        written.write(value[:_HEAD])
        schemaless_writer(written, schema, payload.model_dump())
        return written.getvalue()

    return change


def _consumer(order: Order) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": order.servers,
            "group.id": new_group(),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.min.messages": 50_000,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe([order.input])
    return consumer


def _producer(order: Order) -> Producer:
    return Producer(
        {
            "bootstrap.servers": order.servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )


if __name__ == "__main__":
    told = received()
    loop(told, through_avro() if told.avro else None)

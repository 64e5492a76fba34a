"""A bare consumer as a member of a group until SIGTERM: what the group protocol itself costs. `... bare_member`.

It has our consumer's properties, moves records as the bare loop does, commits what it must give away when it is asked
for it, and leaves a line for each record as `member` does for each call.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from pipeline.broker.admin import open_admin
from pipeline.broker.config import KafkaConfig
from tests.bench import calls
from tests.bench.bare import BATCH, COMMIT_SECONDS, Epochs
from tests.bench.calls import Call
from tests.bench.order import Order, received
from tests.bench.status import Status, Teller

LOOK_SECONDS = 0.1


class BareMember:
    """One consumer and one producer, and what it owns."""

    def __init__(self, order: Order, kafka: KafkaConfig) -> None:
        """Join the group."""
        self.calls: list[Call] = []
        self._owned: set[int] = set()
        self._output = order.output
        self._epochs = Epochs(order.input)
        self._teller = Teller(order.status)
        self._began = time.monotonic()
        self._producer = Producer({**kafka.producer()})
        self._consumer = Consumer({**kafka.consumer(order.group), "auto.offset.reset": "earliest"})
        self._consumer.subscribe([order.input], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def run(self, stop: threading.Event) -> None:
        """Move records until `stop`."""
        commit_at = look_at = 0.0
        while not stop.is_set():
            first = self._consumer.poll(0.05)
            if first is not None and first.error() is None:
                # Booked before `consume`, in which a revocation may happen that commits what is booked.
                self._move(first)
                for message in self._consumer.consume(BATCH, 0):
                    if message.error() is None:
                        self._move(message)
            self._producer.poll(0)
            now = time.monotonic()
            if now > commit_at:
                commit_at = now + COMMIT_SECONDS
                self._commit(asynchronous=True)
            if now > look_at:
                look_at = now + LOOK_SECONDS
                self._teller.tell(
                    Status(began=self._began, settled=len(self.calls), partitions=len(self._owned), first=self._first)
                )
        self._producer.flush()
        self._commit(asynchronous=False)
        self._consumer.close()

    @property
    def _first(self) -> float:
        return self.calls[0].began if self.calls else 0.0

    def _move(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None or partition not in self._owned:
            return
        now, epoch = time.monotonic(), self._epochs.current
        self.calls.append(Call(partition, offset, now, now, True))
        self._producer.produce(
            self._output, message.value(), message.key(), partition=partition, on_delivery=epoch.delivered
        )
        epoch.sent += 1
        epoch.offsets[partition] = offset + 1

    def _commit(self, *, asynchronous: bool) -> None:
        ready = [one for one in self._epochs.turn() if one.partition in self._owned]
        if ready:
            self._consumer.commit(offsets=ready, asynchronous=asynchronous)  # type: ignore[call-overload]  # either way

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned.update(one.partition for one in partitions)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._producer.flush(5)
        try:
            self._commit(asynchronous=False)
        except KafkaException as error:
            print(f"the commit before giving partitions away failed: {error}", flush=True)
        self._lost(_, partitions)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned.difference_update(one.partition for one in partitions)


async def configured(order: Order) -> KafkaConfig:
    """Configure clients as ours are, with the group protocol that ours would choose."""
    kafka = KafkaConfig({"bootstrap.servers": order.servers})
    async with open_admin(kafka) as admin:
        return kafka.with_protocol(await admin.group_protocol())


def run(order: Order) -> None:
    """Run a member until told to stop."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    member = BareMember(order, asyncio.run(configured(order)))
    member.run(stop)
    calls.write(member.calls, order.result)


if __name__ == "__main__":
    run(received())

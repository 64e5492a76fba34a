"""The port `Producer` on a real cluster: one client for the whole process, shared by all its stages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from pipeline.broker.client_log import ClientLog
from pipeline.broker.config import KafkaConfig, refused
from pipeline.broker.verdicts import NotDelivered, undelivered
from pipeline.core.ports import Delivered
from pipeline.core.record import Outgoing
from pipeline.telemetry import logs

# Acknowledgements are looked for a millisecond after a send, then ever more rarely while none come.
QUICK_SECONDS = 0.001
SLOW_SECONDS = 0.05
# With nothing to be acknowledged: log lines, errors and token refreshes still want to be heard.
IDLE_SECONDS = 1.0
CLOSE_SECONDS = 10.0
# Records that wait for room in the client's own queue (100,000 records, or 1 GB). The stages' windows are far smaller.
OVERFLOW_RECORDS = 100_000


class KafkaProducer:
    """Sends records and reports each one's end on the loop it was made on. `open_producer` also closes it."""

    def __init__(self, config: KafkaConfig) -> None:
        """Make the client, which connects in the background. Raises ConfigurationError where it refuses a property."""
        self._loop = asyncio.get_running_loop()
        self._client = _client(config)
        self._overflow: deque[tuple[Outgoing, Delivered]] = deque()
        self._open = 0
        self._closed = False
        self._pause = IDLE_SECONDS
        self._timer = self._loop.call_later(IDLE_SECONDS, self._turn)

    # -------------------------------------------------------------- the port

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        """Queue a record. Where the client's queue is full it waits here, and all later ones behind it."""
        self._open += 1
        if self._overflow or self._closed or not self._produce(record, delivered):
            self._wait_for_room(record, delivered)
        if self._pause > QUICK_SECONDS and not self._closed:
            self._wake()

    async def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all is acknowledged; returns how many records still are not."""
        end = time.monotonic() + timeout
        while self._open:
            self._serve()
            if not self._open or time.monotonic() >= end:
                break
            await asyncio.sleep(QUICK_SECONDS)
        return self._open

    async def close(self) -> None:
        """Flush, then give up what is not acknowledged: each such record's `delivered` hears of it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        left = await self.flush(CLOSE_SECONDS)
        self._timer.cancel()
        if left:
            logs.get().warning(
                f"{left} records were not acknowledged within {CLOSE_SECONDS:g} s of closing: what led to them was not"
                " committed, and will be repeated",
                action="producer_abandoned",
                records=left,
            )
            self._abandon_overflow()
            self._client.purge()
            await self.flush(CLOSE_SECONDS)
        await asyncio.to_thread(self._client.close)

    # -------------------------------------------------------------- sending

    def _produce(self, record: Outgoing, delivered: Delivered) -> bool:
        """Give a record to the client; False where its queue is full."""
        partition = -1 if record.partition is None else record.partition
        acknowledged = partial(self._acknowledged, delivered)
        try:
            if record.headers:
                self._client.produce(
                    record.topic, record.value, record.key, partition, acknowledged, headers=list(record.headers)
                )
            else:
                self._client.produce(record.topic, record.value, record.key, partition, acknowledged)
        except BufferError:
            return False
        except KafkaException as error:
            failure = undelivered(error.args[0], record.topic, record.partition)
            self._loop.call_soon(self._end, delivered, failure)
        return True

    def _wait_for_room(self, record: Outgoing, delivered: Delivered) -> None:
        if len(self._overflow) < OVERFLOW_RECORDS and not self._closed:
            self._overflow.append((record, delivered))
            return
        why = "the producer is closed" if self._closed else f"{OVERFLOW_RECORDS} records wait to be sent already"
        self._loop.call_soon(self._end, delivered, NotDelivered(f"{record.topic}: {why}"))

    # -------------------------------------------------------------- hearing

    def _turn(self) -> None:
        """Look for acknowledgements, and come back: soon where there were some, later where there were none."""
        before = self._open
        self._serve()
        if not self._open:
            self._pause = IDLE_SECONDS
        elif self._open < before:
            self._pause = QUICK_SECONDS
        else:
            self._pause = min(self._pause * 2, SLOW_SECONDS)
        self._timer = self._loop.call_later(self._pause, self._turn)

    def _wake(self) -> None:
        self._timer.cancel()
        self._pause = QUICK_SECONDS
        self._timer = self._loop.call_later(QUICK_SECONDS, self._turn)

    def _serve(self) -> None:
        """Call back for what was acknowledged, and refill the client's queue with what waits for room in it."""
        self._client.poll(0)
        while self._overflow and self._produce(*self._overflow[0]):
            self._overflow.popleft()

    def _acknowledged(self, delivered: Delivered, error: KafkaError | None, message: Message) -> None:
        self._end(delivered, None if error is None else undelivered(error, message.topic() or "", message.partition()))

    def _end(self, delivered: Delivered, failure: Exception | None) -> None:
        self._open -= 1
        try:
            delivered(failure)
        except Exception as error:
            # It must not reach the client, which would drop the callbacks that follow.
            self._loop.call_exception_handler({"message": "a delivery callback failed", "exception": error})

    def _abandon_overflow(self) -> None:
        while self._overflow:
            record, delivered = self._overflow.popleft()
            self._end(delivered, NotDelivered(f"{record.topic}: closed before it could be sent"))


def _client(config: KafkaConfig) -> Client:
    try:
        return Client({**config.producer(), "error_cb": _heard}, logger=ClientLog())
    except KafkaException as error:
        raise refused(config, error.args[0].str()) from None


def _heard(error: KafkaError) -> None:
    """Log what only a person can mend; the rest is in the client's own lines, and passes."""
    if error.fatal():
        logs.get().error(f"the Kafka producer cannot go on: {error.name()}, {error.str()}", action="producer_broken")


@asynccontextmanager
async def open_producer(config: KafkaConfig) -> AsyncIterator[KafkaProducer]:
    """The process's producer; on leaving the block it is flushed and closed."""
    producer = KafkaProducer(config)
    try:
        yield producer
    finally:
        await producer.close()

"""The port `Producer` on a real cluster: one client for the whole process, shared by all its stages.

An acknowledgement is not always one. A partition that is just coming up may refuse a producer's first record and take
the second; having no memory of this producer it does not see the gap, and the first record, tried again, is then a
"duplicate", which librdkafka 2.16 reports as delivered, without an offset. Seen in one of seven topics that were
written to as soon as they existed, and where a topic was deleted and made again. So the first record to a partition
goes alone: the others wait behind it until it has an offset, and a record that was acknowledged without one is sent
again, whenever that happens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from pipeline.broker.client import new_client
from pipeline.broker.config import KafkaConfig
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
# How long a partition is looked for that the client does not know: a little more than its interval of asking for them.
GROW_SECONDS = 6.0
# Records that wait here, for room in the client's own queue (100,000 records, or 1 GB) or behind a first record. The
# stages' windows are far smaller.
WAITING_RECORDS = 100_000


class _Sending(NamedTuple):
    """A record on its way. `proving`: its acknowledgement counts only with an offset. `until`: how long its partition
    is looked for, where the client does not know it."""

    record: Outgoing
    delivered: Delivered
    proving: bool
    until: float = 0.0


class KafkaProducer:
    """Sends records and reports each one's end on the loop it was made on. `open_producer` also closes it."""

    def __init__(self, config: KafkaConfig) -> None:
        """Make the client, which connects in the background. Raises ConfigurationError where it refuses a property."""
        self._loop = asyncio.get_running_loop()
        self._client = new_client(Client, config, {**config.producer(), "error_cb": _heard})
        self._proved: set[tuple[str, int | None]] = set()
        self._behind: dict[tuple[str, int | None], deque[_Sending]] = {}
        self._overflow: deque[_Sending] = deque()
        self._turned: list[tuple[Outgoing, Delivered]] = []
        self._waiting = 0
        self._open = 0
        self._closed = False
        self._pause = IDLE_SECONDS
        self._timer = self._loop.call_later(IDLE_SECONDS, self._turn)

    # -------------------------------------------------------------- the port

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        """Queue a record. Where the client's queue is full it waits here, and all later ones behind it.

        What one turn of the loop sends goes to the client together: it sends at once what it gets, and a request for
        each record would cost more than the record.
        """
        self._open += 1
        if self._closed:
            self._loop.call_soon(self._end, delivered, NotDelivered(f"{record.topic}: the producer is closed"))
            return
        if not self._turned:
            self._loop.call_soon(self._hand_over)
        self._turned.append((record, delivered))

    async def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all is acknowledged; returns how many records still are not."""
        end = time.monotonic() + timeout
        while self._open:
            self._hand_over()
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
            self._abandon()
            self._client.purge()
            await self.flush(CLOSE_SECONDS)
        await asyncio.to_thread(self._client.close)

    # -------------------------------------------------------------- sending

    def _hand_over(self) -> None:
        """Give the client what this turn of the loop has sent."""
        turned, self._turned = self._turned, []
        for record, delivered in turned:
            where = (record.topic, record.partition)
            if where in self._proved:
                self._submit(_Sending(record, delivered, proving=False))
            else:
                self._prove(where, _Sending(record, delivered, proving=True))
        if turned and self._pause > QUICK_SECONDS:
            self._wake()

    def _prove(self, where: tuple[str, int | None], sending: _Sending) -> None:
        """Send the first record to a partition alone. Where the key chooses the partition nobody can wait for it."""
        behind = self._behind.get(where)
        if behind is None:
            if where[1] is not None:
                self._behind[where] = deque()
            self._submit(sending)
        elif not self._wait(behind, sending):
            self._loop.call_soon(self._end, sending.delivered, _too_many(sending))

    def _submit(self, sending: _Sending) -> None:
        if (self._overflow or not self._produce(sending)) and not self._wait(self._overflow, sending):
            self._loop.call_soon(self._fail, sending, _too_many(sending))

    def _produce(self, sending: _Sending) -> bool:
        """Give a record to the client; False where its queue is full."""
        record, _, proving, _ = sending
        partition = -1 if record.partition is None else record.partition
        heard = partial(self._proved_by if proving else self._acknowledged, sending)
        try:
            if record.headers:
                self._client.produce(
                    record.topic, record.value, record.key, partition, heard, headers=list(record.headers)
                )
            else:
                self._client.produce(record.topic, record.value, record.key, partition, heard)
        except BufferError:
            return False
        except KafkaException as error:
            self._refused(sending, error.args[0])
        return True

    def _refused(self, sending: _Sending, error: KafkaError) -> None:
        """Fail a record, or look for its partition: the client learns of new ones every few seconds only."""
        record, now = sending.record, time.monotonic()
        until = sending.until or now + GROW_SECONDS
        if error.code() == KafkaError._UNKNOWN_PARTITION and sending.proving and now < until and not self._closed:
            self._loop.call_later(SLOW_SECONDS, self._submit, sending._replace(until=until))
        else:
            self._loop.call_soon(self._fail, sending, undelivered(error, record.topic, record.partition))

    def _wait(self, queue: deque[_Sending], sending: _Sending) -> bool:
        """Keep a record until its turn comes; False where too many wait already."""
        if self._waiting >= WAITING_RECORDS:
            return False
        self._waiting += 1
        queue.append(sending)
        return True

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
        while self._overflow and self._produce(self._overflow[0]):
            self._overflow.popleft()
            self._waiting -= 1

    def _acknowledged(self, sending: _Sending, error: KafkaError | None, message: Message) -> None:
        """Hear the end of a record whose partition has proved itself."""
        record, offset = sending.record, message.offset()
        if error is None and offset is not None and offset >= 0:
            self._end(sending.delivered, None)
            return
        where = (record.topic, record.partition)
        self._proved.discard(where)  # the topic may have been deleted, and made again
        if error is None:
            self._prove(where, sending._replace(proving=True))
        else:
            self._end(sending.delivered, undelivered(error, record.topic, message.partition()))

    def _proved_by(self, sending: _Sending, error: KafkaError | None, message: Message) -> None:
        """Hear the end of a record that has to prove its partition."""
        topic, partition, offset = sending.record.topic, message.partition(), message.offset()
        if error is not None:
            self._fail(sending, undelivered(error, topic, partition))
        elif offset is None or offset < 0:
            self._submit(sending)
        else:
            if sending.record.partition is not None or (topic, partition) not in self._behind:
                self._proved.add((topic, partition))
            self._end(sending.delivered, None)
            self._follow(sending)

    def _fail(self, sending: _Sending, failure: Exception) -> None:
        self._end(sending.delivered, failure)
        if sending.proving:
            self._follow(sending)

    def _follow(self, sending: _Sending) -> None:
        """Send what waited behind a first record: all of it if that has proved the partition, else the next one."""
        where = (sending.record.topic, sending.record.partition)
        behind = self._behind.pop(where, None)
        while behind:
            following = behind.popleft()
            self._waiting -= 1
            if where in self._proved:
                self._submit(following._replace(proving=False))
            else:
                self._behind[where] = behind
                self._submit(following)
                return

    def _end(self, delivered: Delivered, failure: Exception | None) -> None:
        self._open -= 1
        try:
            delivered(failure)
        except Exception as error:
            # It must not reach the client, which would drop the callbacks that follow.
            self._loop.call_exception_handler({"message": "a delivery callback failed", "exception": error})

    def _abandon(self) -> None:
        waiting = [*self._overflow, *(sending for behind in self._behind.values() for sending in behind)]
        self._overflow.clear()
        self._behind.clear()
        self._waiting = 0
        for sending in waiting:
            self._end(sending.delivered, NotDelivered(f"{sending.record.topic}: closed before it could be sent"))


def _too_many(sending: _Sending) -> NotDelivered:
    return NotDelivered(f"{sending.record.topic}: {WAITING_RECORDS} records wait to be sent already")


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

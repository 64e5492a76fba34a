"""The port `Transactions` on a real cluster: one client and one thread for each exactly-once stage.

A transaction is open only while its batch is written, so it holds back no reader for longer than that. What fails
before the commit was asked for did not take place. What fails afterwards may have: then the client is replaced, for
`init_transactions` ends whatever its predecessor has left open, and the group's own offsets, which were part of the
transaction, tell how that ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.broker.client import new_client
from pipeline.broker.commits import offsets_of
from pipeline.broker.config import KafkaConfig
from pipeline.broker.transaction_verdicts import Forbidden, took_place, unusable
from pipeline.broker.verdicts import undelivered
from pipeline.core.ports import Batch, Ended, NotCommitted
from pipeline.core.record import Commit, Partition
from pipeline.telemetry import logs

# One call of the client blocks for so long at most, so that closing is noticed.
SLICE_SECONDS = 1.0
PAUSE_SECONDS = 0.1
CLOSE_SECONDS = 10.0
LOOKUP_SECONDS = 5.0

# confluent-kafka 2.16 leaves an exception pending when a producer is fenced, and the next call of anything fails with
# SystemError. Both mean that the call did not do what it was asked.
FAILURES = (KafkaException, SystemError)


class _Closing(Exception):
    """The adapter is being closed: a batch under way is left to the broker, which aborts what is not committed."""


class KafkaTransactions:
    """Transactions of one stage in one process. Made on the running loop; `open_transactions` also closes it."""

    def __init__(self, config: KafkaConfig, group: str, transactional_id: str) -> None:
        """Make the client, which connects in the background. Raises ConfigurationError where it refuses a property."""
        self._loop = asyncio.get_running_loop()
        self._writing = _Writing(config, group, transactional_id)
        self._jobs: queue.SimpleQueue[tuple[Batch, Future[Exception | None]] | None] = queue.SimpleQueue()
        self._future: Future[Exception | None] | None = None
        self._ended: Ended | None = None
        # A daemon: a client that hangs on a dead network must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"kafka {transactional_id}", daemon=True)
        self._thread.start()

    # -------------------------------------------------------------- the port

    def begin(self, batch: Batch, ended: Ended) -> None:
        """Hand a batch to the thread."""
        if self._future is not None:
            raise RuntimeError("a batch is under way already")
        self._ended, self._future = ended, Future()
        self._future.add_done_callback(self._done)
        self._jobs.put((batch, self._future))

    def wait(self, seconds: float) -> bool:
        """Block until the batch under way has ended."""
        future = self._future
        if future is None:
            return True
        try:
            future.result(seconds)
        except TimeoutError:
            return False
        self._tell(future)
        return True

    async def close(self) -> None:
        """End the thread. A batch that no broker has answered by then is aborted by the broker, or is there whole."""
        self._writing.closing = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
        if self._thread.is_alive():
            logs.get().warning("a transaction was left to the broker, which does not answer", action="left_unheard")

    # -------------------------------------------------------------- between the thread and the loop

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, future = job
            try:
                future.set_result(self._writing.write(batch))
            except Exception as error:
                future.set_result(error)
            del job, batch, future
        self._writing.close()

    def _done(self, future: Future[Exception | None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(self._tell, future)

    def _tell(self, future: Future[Exception | None]) -> None:
        if future is not self._future:
            return  # told already, by `wait`
        ended, self._future, self._ended = self._ended, None, None
        if ended is not None:
            ended(future.result())


class _Writing:
    """What the thread does. The client is replaced when it can no longer be trusted."""

    def __init__(self, config: KafkaConfig, group: str, transactional_id: str) -> None:
        self.closing = False
        self._config = config
        self._group = group
        self._id = transactional_id
        self._client = self._open()
        self._ready = False

    def write(self, batch: Batch) -> Exception | None:
        """Bring a batch to its end; returns how that was."""
        try:
            self._prepare()
            return self._attempt(batch)
        except _Closing:
            return NotCommitted("the stage is being closed")
        except Forbidden as forbidden:
            return forbidden.halt

    def close(self) -> None:
        """Let go of the client."""
        self._client.purge()
        # It would abort what is open first, and a client that is fenced raises there.
        with contextlib.suppress(*FAILURES):
            self._client.close()

    # -------------------------------------------------------------- one batch

    def _attempt(self, batch: Batch) -> Exception | None:
        try:
            self._patiently(self._client.begin_transaction)
            refused, again = self._produce(batch)
            if refused or again:
                self._abort()
                return NotCommitted("records were refused" if refused else "a partition was not ready", refused)
            offsets = offsets_of(batch.offsets)
            self._patiently(partial(self._client.send_offsets_to_transaction, offsets, batch.member, SLICE_SECONDS))
        except FAILURES as error:
            self._abort()
            return NotCommitted(_text(error))
        try:
            self._patiently(partial(self._client.commit_transaction, SLICE_SECONDS))
        except FAILURES as error:
            return self._find_out(batch, error)
        return None

    def _produce(self, batch: Batch) -> tuple[dict[int, Exception], bool]:
        """Write the records and wait for each one's acknowledgement.

        Returns which are refused for good, and whether one was acknowledged without an offset (kafka_producer.py says
        why that is none). Raises KafkaException where the transaction is over.
        """
        refused: dict[int, Exception] = {}
        failed: list[KafkaError] = []
        lost: list[int] = []

        def heard(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                record = batch.records[index]
                if unusable(error):
                    failed.append(error)
                else:
                    refused[index] = undelivered(error, record.topic, record.partition)
            elif message.offset() is None or (message.offset() or 0) < 0:
                lost.append(index)

        for index, record in enumerate(batch.records):
            where = -1 if record.partition is None else record.partition
            produce = partial(
                self._client.produce,
                record.topic,
                record.value,
                record.key,
                where,
                partial(heard, index),
                headers=list(record.headers),
            )
            try:
                self._patiently(produce)
            except KafkaException as error:
                if unusable(error.args[0]):
                    raise
                refused[index] = undelivered(error.args[0], record.topic, record.partition)
        while not refused and not failed and self._client.flush(SLICE_SECONDS):
            self._go_on()
        if failed and not refused:
            raise KafkaException(failed[0])
        return refused, bool(lost)

    def _abort(self) -> None:
        """Make certain that nothing of the transaction takes place."""
        try:
            self._patiently(partial(self._client.abort_transaction, SLICE_SECONDS))
        except FAILURES:
            self._replace()

    def _find_out(self, batch: Batch, error: Exception) -> Exception | None:
        """Say how a transaction ended whose commit was answered by an error, or by nothing."""
        self._replace()
        self._prepare()
        found = self._offsets(batch)
        if took_place(batch.offsets, found):
            logs.get().info(f"a transaction was committed after all: {_text(error)}", action="transaction_found")
            return None
        return NotCommitted(_text(error))

    # -------------------------------------------------------------- the client

    def _open(self) -> Producer:
        return new_client(Producer, self._config, {**self._config.transactions(self._id), "error_cb": _quiet})

    def _prepare(self) -> None:
        """Fence and end what an earlier client of this id has left, if that was not done yet."""
        while not self._ready:
            try:
                self._patiently(partial(self._client.init_transactions, SLICE_SECONDS))
                self._ready = True
            except FAILURES as error:
                if isinstance(error, KafkaException):
                    Forbidden.check(error.args[0], self._id)
                self._replace()
                time.sleep(PAUSE_SECONDS)
                self._go_on()

    def _replace(self) -> None:
        self.close()
        self._client, self._ready = self._open(), False

    def _offsets(self, batch: Batch) -> dict[Partition, Commit]:
        """Look up what the group has committed, once no transaction on it is open (KIP-447: stable offsets)."""
        parts = [TopicPartition(*name) for name in batch.offsets]
        consumer = new_client(Consumer, self._config, self._config.consumer(self._group))
        try:
            while True:
                with contextlib.suppress(KafkaException):
                    found = consumer.committed(parts, timeout=LOOKUP_SECONDS)
                    if all(part.error is None for part in found):
                        return {
                            Partition(part.topic, part.partition): Commit(part.offset, part.metadata or "")
                            for part in found
                        }
                self._go_on()
                time.sleep(PAUSE_SECONDS)
        finally:
            consumer.close()

    def _patiently(self, call: Callable[[], object]) -> None:
        """Make a call again while the client says that this is all it needs; raises KafkaException otherwise."""
        while True:
            try:
                call()
            except BufferError:
                self._client.poll(PAUSE_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable() or error.args[0].txn_requires_abort():
                    raise
                time.sleep(0.005)
            else:
                return
            self._go_on()

    def _go_on(self) -> None:
        if self.closing:
            raise _Closing


def _text(error: Exception) -> str:
    why = error.args[0]
    return f"{why.name()}, {why.str()}" if isinstance(why, KafkaError) else str(why)


def _quiet(_error: KafkaError) -> None:
    """What is wrong comes back from the calls; the connection's own lines are in the log."""


@asynccontextmanager
async def open_transactions(config: KafkaConfig, group: str, transactional_id: str) -> AsyncIterator[KafkaTransactions]:
    """Transactions for the offsets of `group`, closed with the block. Nobody else may use the id at the same time."""
    transactions = KafkaTransactions(config, group, transactional_id)
    try:
        yield transactions
    finally:
        await transactions.close()

"""The port `Transactions` on a real cluster: one client and one thread for each exactly-once stage.

A transaction is open only while its batch is written, so it holds back no reader for longer than that. What fails
before the commit was asked for did not take place. What fails afterwards may have: then the client is replaced, for
`init_transactions` ends whatever its predecessor has left open, and the group's own offsets, which were part of the
transaction, tell how that ended.

A call that does not come back is given up, with its client: librdkafka 2.16.0 (confluent-kafka 2.16.1) looks at no
timeout while `send_offsets_to_transaction` waits for the group's coordinator, and it waits until some connection comes
or goes where three lookups in a row are answered by COORDINATOR_NOT_AVAILABLE, as while a broker starts, or where the
coordinator that it remembers is from before it has bootstrapped again, as it does once all connections are lost. What
was given up does no harm: nobody asks it for a commit any more, and its successor has fenced it before a word is said
of its batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.broker.calls import Calls, Unanswered
from pipeline.broker.client import new_client
from pipeline.broker.commits import offsets_of
from pipeline.broker.config import KafkaConfig, Value
from pipeline.broker.transaction_verdicts import Forbidden, took_place, unusable
from pipeline.broker.verdicts import undelivered
from pipeline.core.ports import Batch, Ended, NotCommitted
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.telemetry import logs

# One call of the client is asked to block for so long at most, so that closing is noticed.
SLICE_SECONDS = 1.0
PAUSE_SECONDS = 0.1
CLOSE_SECONDS = 10.0
LOOKUP_SECONDS = 5.0
# A call that says that it has to be made again, and no more, for so long is given up with its client: the broker has
# ended such a transaction long before, and a new client asks for the brokers' addresses anew.
RETRY_SECONDS = 30.0
# A batch that takes so long is in the log, with what it waits for; and again each time it has taken twice as long.
NOTICE_SECONDS = 5.0

# confluent-kafka 2.16 leaves an exception pending when a producer is fenced, and the next call of anything fails with
# SystemError. Both mean that the call did not do what it was asked.
FAILURES = (KafkaException, SystemError, Unanswered)

# The default, rebootstrap, makes new brokers of old ones when all connections are lost, and the coordinator that the
# client remembers is none of them.
_STAY: Mapping[str, Value] = {"metadata.recovery.strategy": "none"}


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
        self._calls = Calls(f"kafka {transactional_id} calls")
        self._ready = False
        self._alone: bytes | None = None
        self._waits_for = ""
        self._began = self._notice_at = 0.0

    def write(self, batch: Batch) -> Exception | None:
        """Bring a batch to its end; returns how that was."""
        self._began = time.monotonic()
        self._notice_at = self._began + NOTICE_SECONDS
        try:
            self._prepare()
            return self._attempt(batch)
        except _Closing:
            return NotCommitted("the stage is being closed")
        except Forbidden as forbidden:
            return forbidden.halt

    def close(self) -> None:
        """Let go of the client, which ends soon or, where a call of it hangs, some time."""
        self._let_go()
        self._calls.join(CLOSE_SECONDS)

    # -------------------------------------------------------------- one batch

    def _attempt(self, batch: Batch) -> Exception | None:
        try:
            self._ask("begin_transaction", self._client.begin_transaction)
            refused, again = self._produce(batch)
            if refused or again:
                self._abort()
                return NotCommitted("records were refused" if refused else "a partition was not ready", refused)
            offsets = offsets_of(batch.offsets)
            member = batch.member or self._nobody()
            send = partial(self._client.send_offsets_to_transaction, offsets, member, SLICE_SECONDS)
            self._ask("send_offsets_to_transaction", send)
        except FAILURES as error:
            self._abort()
            if isinstance(error, Unanswered):
                self._offsets(batch)  # until there is a coordinator, the next client would hang as well
            return NotCommitted(_text(error))
        try:
            self._ask("commit_transaction", partial(self._client.commit_transaction, SLICE_SECONDS))
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
            try:
                self._send(record, partial(heard, index))
            except KafkaException as error:
                if unusable(error.args[0]):
                    raise
                refused[index] = undelivered(error.args[0], record.topic, record.partition)
        self._waits_for = "the records' acknowledgements"
        while not refused and not failed and self._client.flush(SLICE_SECONDS):
            self._go_on()
        if failed and not refused:
            raise KafkaException(failed[0])
        return refused, bool(lost)

    def _send(self, record: Outgoing, heard: Callable[[KafkaError | None, Message], None]) -> None:
        where = -1 if record.partition is None else record.partition
        headers: list[tuple[str, str | bytes | None]] = [*record.headers]
        try:
            self._client.produce(record.topic, record.value, record.key, where, heard, headers=headers)
        except (BufferError, KafkaException):
            again = partial(self._client.produce, record.topic, record.value, record.key, where, heard, headers=headers)
            self._patiently(again)

    def _abort(self) -> None:
        """Make certain that nothing of the transaction takes place."""
        try:
            self._ask("abort_transaction", partial(self._client.abort_transaction, SLICE_SECONDS))
        except FAILURES:
            self._replace()
            self._prepare()

    def _find_out(self, batch: Batch, error: Exception) -> Exception | None:
        """Say how a transaction ended whose commit was answered by an error, or by nothing."""
        self._replace()
        self._prepare()
        found = self._offsets(batch)
        if took_place(batch.offsets, found):
            logs.get().info(f"a transaction was committed after all: {_text(error)}", action="transaction_found")
            return None
        return NotCommitted(_text(error))

    def _nobody(self) -> bytes:
        """Return the word of one who is no member, which groups believe for the sake of clients older than KIP-447."""
        if self._alone is None:
            consumer = new_client(Consumer, self._config, self._config.reader(self._group))
            self._alone = consumer.consumer_group_metadata()
            consumer.close()
        return self._alone

    # -------------------------------------------------------------- the client

    def _open(self) -> Producer:
        properties = {**_STAY, **self._config.transactions(self._id), "error_cb": _quiet}
        return new_client(Producer, self._config, properties)

    def _prepare(self) -> None:
        """Fence and end what an earlier client of this id has left, if that was not done yet."""
        while not self._ready:
            try:
                self._ask("init_transactions", partial(self._client.init_transactions, SLICE_SECONDS))
                self._ready = True
            except FAILURES as error:
                if isinstance(error, KafkaException):
                    Forbidden.check(error.args[0], self._id)
                self._replace()
                time.sleep(PAUSE_SECONDS)
                self._go_on()

    def _replace(self) -> None:
        self._let_go()
        self._client, self._ready = self._open(), False
        self._calls = Calls(f"kafka {self._id} calls")

    def _let_go(self) -> None:
        """Have the client closed once nothing of it is under way, without waiting for that."""
        client = self._client

        def close() -> None:
            client.purge()
            # It would abort what is open first, and a client that is fenced raises there.
            with contextlib.suppress(*FAILURES):
                client.close()

        self._calls.end(close)

    def _offsets(self, batch: Batch) -> dict[Partition, Commit]:
        """Look up what the group has committed, once no transaction on it is open (KIP-447: stable offsets)."""
        while True:
            consumer = new_client(Consumer, self._config, self._config.consumer(self._group))
            calls = Calls(f"kafka {self._id} lookup")
            try:
                return self._look_up(calls, consumer, [TopicPartition(*name) for name in batch.offsets])
            except Unanswered:
                self._go_on()
            finally:
                calls.end(consumer.close)

    def _look_up(self, calls: Calls, consumer: Consumer, parts: list[TopicPartition]) -> dict[Partition, Commit]:
        self._waits_for = what = "the group's offsets"
        while True:
            with contextlib.suppress(KafkaException):
                found = calls.make(what, partial(consumer.committed, parts, timeout=LOOKUP_SECONDS), self._go_on)
                if all(part.error is None for part in found):
                    return {
                        Partition(part.topic, part.partition): Commit(part.offset, part.metadata or "")
                        for part in found
                    }
            self._go_on()
            time.sleep(PAUSE_SECONDS)

    def _ask(self, what: str, call: Callable[[], object]) -> None:
        """Make a call that may block; raises Unanswered where it does not come back."""
        self._waits_for = what
        self._patiently(partial(self._calls.make, what, call, self._go_on))

    def _patiently(self, call: Callable[[], object]) -> None:
        """Make a call again while the client says that this is all it needs; raises KafkaException otherwise."""
        end = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                call()
            except BufferError:
                self._client.poll(PAUSE_SECONDS)
            except KafkaException as error:
                hopeless = not error.args[0].retriable() or error.args[0].txn_requires_abort()
                if hopeless or time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return
            self._go_on()

    def _go_on(self) -> None:
        """Whoever waits asks this, again and again."""
        if self.closing:
            raise _Closing
        now = time.monotonic()
        if now >= self._notice_at:
            waited = now - self._began
            self._notice_at = now + waited
            logs.get().warning(
                f"transactional id {self._id}: a batch has waited {waited:.0f} s for Kafka, now for {self._waits_for}",
                action="transaction_waits",
            )


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

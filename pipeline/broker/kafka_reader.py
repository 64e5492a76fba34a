"""The port `Reader` on a real cluster.

As with the consumer, a gate in confluent-kafka serialises all calls of one client, so one side has it at a time. Here
that is always the thread: what is read this way comes at the pace of a slow stage's outputs, and nothing of it is worth
a call of the client on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.broker.client import new_client
from pipeline.broker.config import KafkaConfig, Value
from pipeline.broker.handover import Handover
from pipeline.broker.reading import records_of
from pipeline.broker.verdicts import broken, forbidden, meaning
from pipeline.core.record import Partition, Record
from pipeline.telemetry import logs

SLICE_SECONDS = 0.05
LOOKUP_SECONDS = 1.0
AGAIN_SECONDS = 0.5
CLOSE_SECONDS = 5.0
# Of a lookup by time (KIP-79): these two are no times but the two ends of the log.
_EARLIEST, _LATEST = -2, -1

Then = Callable[[], None]
"""What is left to do on the loop once the thread has done its part."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One end of some logs: `found`, what does `not exist`, and what could not be told now, and why."""

    found: Mapping[Partition, int]
    missing: Collection[Partition] = ()
    reason: str = ""


class KafkaReader:
    """Reads without a group. Made on the running loop; `open_reader` also closes it."""

    def __init__(self, config: KafkaConfig, name: str, *, committed: bool = False, kept: bool = True) -> None:
        """Make the client, which connects in the background. `name` is for the log, `kept` as `records_of` has it."""
        self._name = name
        self._kept = kept
        self._log = logs.get(reader=name)
        self._handover: Handover[Then] = Handover(f"kafka reader {name}", self._back)
        self._client = _client(config.reader(name, committed=committed), config, self._event)
        self._turn = asyncio.Lock()
        self._called = False
        self._wishes: dict[Partition, int | None] = {}
        self._held: list[Record] = []
        self._reached: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._failure: Exception | None = None
        self._closing: asyncio.Future[None] | None = None
        # Touched by the thread only:
        self._starts: dict[Partition, int] = {}
        self._astray: dict[Partition, int] = {}
        self._look_again = 0.0
        self._waits_for = ""

    # -------------------------------------------------------------- the port

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Look up the next offset to be written of each partition; those that do not exist are left out."""
        answers: list[Mapping[Partition, int]] = []
        while self._closing is None and not answers:
            await self._elsewhere(lambda: partial(self._ends, partitions, answers.append))
            if not answers:
                await asyncio.sleep(AGAIN_SECONDS)
        return answers[0] if answers else {}

    def follow(self, partition: Partition, offset: int) -> None:
        """Read a partition from `offset` on, or from its log's beginning where the log does not have that."""
        self._drop([partition])
        self._wishes[partition] = offset
        self._called = True

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these no more."""
        self._drop(partitions)
        self._wishes.update(dict.fromkeys(partitions))
        self._called = True

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after about `timeout` seconds."""
        deadline = time.monotonic() + timeout
        tried = False
        while self._closing is None:
            if self._failure is not None:
                raise self._failure
            if self._held or (tried and time.monotonic() >= deadline):
                break
            await self._elsewhere(lambda: partial(self._read, self._take_wishes(), limit, deadline))
            tried = True
        records, self._held = self._held[:limit], self._held[limit:]
        if not self._held:
            self._positions = self._reached
        return records

    def positions(self) -> Mapping[Partition, int]:
        """Return where reading stood after the last fetch."""
        return self._positions

    async def close(self) -> None:
        """Stop. Without a broker this gives up after a few seconds."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    # -------------------------------------------------------------- on the loop

    async def _elsewhere(self, job: Callable[[], Callable[[], Then]]) -> None:
        self._called = True
        async with self._turn:
            # One that was cancelled may have left the client with the thread.
            await self._handover.returned()
            self._called = False
            self._handover.give(job())
            await self._handover.returned()

    def _back(self, then: Then | None, failure: Exception | None) -> None:
        if then is not None:
            then()
        self._failure = self._failure or failure

    def _take_wishes(self) -> dict[Partition, int | None]:
        wishes, self._wishes = self._wishes, {}
        return wishes

    def _came(
        self, records: Sequence[Record], positions: Mapping[Partition, int], again: Mapping[Partition, int]
    ) -> None:
        """Book what the thread brings, but for partitions that were asked for anew or left meanwhile."""
        asked = self._wishes
        kept = [one for one in records if Partition(one.topic, one.partition) not in asked] if asked else records
        self._held += kept
        self._reached = {name: offset for name, offset in positions.items() if name not in asked}
        self._wishes = {**again, **asked}

    def _drop(self, partitions: Collection[Partition]) -> None:
        gone = set(partitions)
        self._held = [record for record in self._held if (record.topic, record.partition) not in gone]
        self._reached = {name: offset for name, offset in self._reached.items() if name not in gone}
        self._positions = {name: offset for name, offset in self._positions.items() if name not in gone}

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._elsewhere(lambda: self._end)
        except TimeoutError:
            self._log.debug("the reader's client did not end in time", action="reader_left")
        self._handover.stop()

    # -------------------------------------------------------------- on the thread

    def _read(self, wishes: Mapping[Partition, int | None], limit: int, deadline: float) -> Then:
        again = self._carry_out(wishes)
        if again:
            deadline = min(deadline, self._look_again)
        records = records_of(self._watch(limit, deadline), self._event, kept=self._kept)
        again = {**again, **self._astray}
        self._astray = {}
        return partial(self._came, records, self._stand(), again)

    def _watch(self, limit: int, deadline: float) -> list[Message]:
        while True:
            left = deadline - time.monotonic()
            first = self._client.poll(min(max(left, 0.0), SLICE_SECONDS))
            if first is not None:
                self._heard()
                return [first, *(self._client.consume(limit - 1, 0) if limit > 1 else [])]
            if left <= SLICE_SECONDS or self._called:
                return []

    def _stand(self) -> dict[Partition, int]:
        """Look up where reading stands. Until the first record of a partition is read, that is where it began."""
        found = self._client.position([TopicPartition(*name) for name in self._starts]) if self._starts else []
        known = {Partition(part.topic, part.partition): part.offset for part in found}
        return {name: max(start, known.get(name, start)) for name, start in self._starts.items()}

    def _carry_out(self, wishes: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Leave and follow; returns what cannot be followed yet."""
        gone = [TopicPartition(*name) for name in wishes if self._starts.pop(name, None) is not None]
        if gone:
            self._client.incremental_unassign(gone)
        wanted = {name: offset for name, offset in wishes.items() if offset is not None}
        if not wanted or time.monotonic() < self._look_again:
            return wanted
        low, high = self._look_up(wanted, _EARLIEST), self._look_up(wanted, _LATEST)
        bounds = {
            name: (low.found[name], high.found[name]) for name in wanted if name in low.found and name in high.found
        }
        for name, (lowest, highest) in bounds.items():
            self._starts[name] = wanted[name] if lowest <= wanted[name] <= highest else lowest
        if bounds:
            self._client.incremental_assign([TopicPartition(*name, self._starts[name]) for name in bounds])
        left = {name: offset for name, offset in wanted.items() if name not in bounds}
        if left:
            self._look_again = time.monotonic() + AGAIN_SECONDS
        self._say(low.reason or high.reason or _absent({*low.missing, *high.missing}))
        return left

    def _ends(self, partitions: Collection[Partition], answer: Callable[[Mapping[Partition, int]], None]) -> Then:
        found = self._look_up(partitions, _LATEST)
        self._say(found.reason)
        return partial(answer, found.found) if not found.reason else _nothing

    def _look_up(self, partitions: Collection[Partition], end: int) -> _Lookup:
        if not partitions:
            return _Lookup({})
        asked = [TopicPartition(*name, end) for name in partitions]
        try:
            answers = self._client.offsets_for_times(asked, timeout=LOOKUP_SECONDS)
        except KafkaException as error:
            if meaning(error.args[0]) == "missing":  # so it says where none of them exists
                return _Lookup({}, partitions)
            return _Lookup({}, reason=f"Kafka does not answer ({error.args[0].str()})")
        found, missing, reason = {}, [], ""
        for part in answers:
            name = Partition(part.topic, part.partition)
            if part.error is None:
                found[name] = part.offset
            elif meaning(part.error) == "missing":
                missing.append(name)
            else:
                self._event(part.error)
                reason = f"Kafka does not say where {name.topic}/{name.number} ends ({part.error.str()})"
        return _Lookup(found, missing, reason)

    def _end(self) -> Then:
        self._client.close()
        return _nothing

    # -------------------------------------------------------------- words

    def _say(self, reason: str) -> None:
        """Name in the log what is waited for, once."""
        if reason and reason != self._waits_for:
            self._log.warning(f"{self._name} waits: {reason}", action="reader_waits")
        if not reason:
            self._heard()
        self._waits_for = reason

    def _heard(self) -> None:
        if self._waits_for:
            self._log.info(f"{self._name} reads on", action="reader_reads")
        self._waits_for = ""

    def _event(self, error: KafkaError, message: Message | None = None) -> None:
        """Hear of an error: the client's `error_cb`, or in the place of a record."""
        topic = message.topic() if message is not None else None
        match meaning(error):
            case "nothing" | "missing":
                pass
            case "away":
                self._say(f"Kafka does not answer ({error.str()})")
            case "astray" if message is not None and topic is not None:
                self._astray[Partition(topic, message.partition() or 0)] = max(message.offset() or 0, 0)
            case "forbidden":
                self._failure = self._failure or forbidden(error, self._name, topic)
            case "fatal":
                self._failure = self._failure or broken(error, self._name)
            case _:
                self._log.warning(error.str(), action="kafka_event", code=error.name(), topic=topic)


def _nothing() -> None:
    """Leave nothing to be done."""


def _absent(partitions: Collection[Partition]) -> str:
    topics = sorted({name.topic for name in partitions})
    return f"{', '.join(topics)} or partitions of it do not exist yet" if topics else ""


def _client(properties: Mapping[str, Value], config: KafkaConfig, happened: Callable[[KafkaError], None]) -> Consumer:
    return new_client(Consumer, config, {**properties, "error_cb": happened})


@asynccontextmanager
async def open_reader(
    config: KafkaConfig, name: str, *, committed: bool = False, kept: bool = True
) -> AsyncIterator[KafkaReader]:
    """A reader that is closed with the block; with `committed`, it sees and counts no more than a group does.

    One whose records are not `kept`, but looked at and dropped, is quicker.
    """
    reader = KafkaReader(config, name, committed=committed, kept=kept)
    try:
        yield reader
    finally:
        await reader.close()

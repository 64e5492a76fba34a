"""The delivery log: every attempt at every webhook, as the topic `deliveries` has it, found again and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pipeline.core import headers as h
from pipeline.core.errors import Reject
from pipeline.core.payloads import Delivery
from pipeline.core.ports import Codec, Reader
from pipeline.core.record import Partition, Position, Record
from pipeline.ops.log_scan import Progress, Shelf, scan, take_snapshot

NOUN = "deliveries"
OUTCOMES = ("delivered", "failed", "undeliverable", "suppressed")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log: where it stands, when it was written (epoch ms), whose it is, and what it says.

    `source` is where the record first stood that was to be delivered, `stage` whose try it was, `run` the job's.
    """

    position: Position
    at_ms: int
    job: str
    run: int
    source: Position | None
    delivery: Delivery

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        told = self.delivery.model_dump(mode="json")
        return {"position": str(self.position), "at_ms": self.at_ms, "job": self.job, "run": self.run, **told}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are meant; None asks nothing. Times are epoch ms: `since_ms` or later, and before `until_ms`."""

    endpoint: str | None = None
    outcome: str | None = None
    job: str | None = None
    webhook_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def by_headers(self, record: Record, job: str) -> bool:
        """Whether a record may be one of them, as far as it tells without being decoded."""
        return (
            (self.job is None or job == self.job)
            and (self.since_ms is None or record.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or record.timestamp_ms < self.until_ms)
        )

    def by_content(self, delivery: Delivery) -> bool:
        """Whether an entry that may be one of them is."""
        return (
            (self.endpoint is None or delivery.endpoint == self.endpoint)
            and (self.outcome is None or delivery.outcome == self.outcome)
            and (self.webhook_id is None or delivery.webhook_id == self.webhook_id)
        )


@dataclass(frozen=True, slots=True)
class DeliveryLog:
    """Reads the log, which is `topic`, to where it ends when it is asked."""

    reader: Reader
    shelf: Shelf
    codec: Codec
    topic: str
    progress: Progress

    async def entries(self, wanted: Wanted) -> AsyncIterator[Entry]:
        """Go through the entries that are meant, in order within a partition: that is, of one job. Junk is passed."""
        spans = await self._spans(wanted.since_ms)
        async for records in scan(self.reader, spans, partial(self.progress, "deliveries")):
            for record in records:
                entry = await self._entry(record, wanted)
                if entry is not None:
                    yield entry

    async def _spans(self, since_ms: int | None) -> Mapping[Partition, range]:
        whole = (await take_snapshot(self.reader, self.shelf, [self.topic])).spans
        if since_ms is None:
            return whole
        at = await self.shelf.offsets_at([self.topic], since_ms)
        return {name: range(max(span.start, at.get(name, 0)), span.stop) for name, span in whole.items()}

    async def _entry(self, record: Record, wanted: Wanted) -> Entry | None:
        read = h.texts(record.headers)
        job = read.get(h.CE_SUBJECT, "")
        if record.value is None or not wanted.by_headers(record, job):
            return None
        try:
            delivery = await self.codec.decode(NOUN, Delivery, record.value)
        except Reject:
            return None
        if not wanted.by_content(delivery):
            return None
        source, run = h.settled(read.get(h.SOURCE)), h.count(read.get(h.RUN))
        return Entry(record.position, record.timestamp_ms, job, run, source[0] if source else None, delivery)


@dataclass(slots=True)
class Outcomes:
    """What the log says of one endpoint: how often each outcome was, and the last attempt."""

    counts: Counter[str] = field(default_factory=Counter)
    last: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Show one."""
        self.counts[entry.delivery.outcome] += 1
        if entry.delivery.outcome != "suppressed" and (self.last is None or entry.at_ms >= self.last.at_ms):
            self.last = entry


async def ended_as(outcome: str, entries: AsyncIterator[Entry]) -> list[Entry]:
    """Return the last entry of each webhook whose last entry has this outcome; `entries` are those of all outcomes.

    All of one webhook stand in one partition, in order. Holds no more than what was about to be returned, and of that
    not what its sender has chosen the size of.
    """
    standing: dict[str, Entry] = {}
    async for entry in entries:
        # Taken out and put in again: so they stay in the order of their last word.
        standing.pop(entry.delivery.webhook_id, None)
        if entry.delivery.outcome == outcome:
            slim = entry.delivery.model_copy(update={"metadata": {}, "reason": ""})
            standing[entry.delivery.webhook_id] = replace(entry, delivery=slim)
    return list(standing.values())

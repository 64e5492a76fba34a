"""Sending webhooks once more: the record that each came from is copied into its stage's first retry topic, due now.

Key and value stay byte for byte, and the webhook's id is that of before, so that a receiver which has seen it drops it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core import headers as h
from pipeline.core.deadletter import copy_headers
from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.headers import Tries
from pipeline.core.job import child_id
from pipeline.core.payloads import Audit, Message
from pipeline.core.ports import Clock, Codec, Producer, Reader
from pipeline.core.record import Header, Outgoing, Partition, Record
from pipeline.ops.deliveries import Entry
from pipeline.ops.log_scan import Progress, records_at
from pipeline.ops.publish import send_all

RESENT = "delivery.resent"
MESSAGES = "messages"
BATCH = 500
"""How many copies are under way at once."""
_BEFORE = 0.01  # seconds: a copy's own time is looked at in whole milliseconds, and it is to be due by then


@dataclass(frozen=True, slots=True)
class Copy:
    """An entry of the log, and the copy that brings its webhook back."""

    entry: Entry
    record: Outgoing


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry of the log whose webhook cannot be sent again, and why."""

    entry: Entry
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Where records are copied from and to. `routes` names by source topic the retry topic of its stage.

    `messages` is the topic whose records name their webhook in their payload; on all others the event's id is its id.
    """

    reader: Reader
    codec: Codec
    routes: Mapping[str, str]
    messages: str

    async def copies(self, entries: Iterable[Entry], resend: str, now: float) -> AsyncIterator[Copy | Refused]:
        """Find the record of each entry and make its copy, marked with the id `resend`."""
        wanted: dict[Partition, dict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in entries:
            place = entry.source
            if place is None or place.topic not in self.routes:
                yield Refused(entry, f"it does not tell which record it came from ({place or 'no position'})")
            else:
                wanted[Partition(place.topic, place.partition)][place.offset].append(entry)
        for name, places in wanted.items():
            async for offset, record in records_at(self.reader, name, sorted(places)):
                for entry in places[offset]:
                    yield await self._copy(entry, record, resend, now)

    async def _copy(self, entry: Entry, record: Record | None, resend: str, now: float) -> Copy | Refused:
        if record is None:
            return Refused(entry, f"{entry.source} is not kept any more")
        own = await self._webhook_id(record)
        marks: list[Header] = [(h.REPLAY_ID, resend.encode("ascii"))]
        if own != entry.delivery.webhook_id:
            if child_id(own, "run", 0, entry.run) != entry.delivery.webhook_id:
                return Refused(entry, f"{entry.source} is another record now")
            marks.append((h.REPLAY_RUN, b"%d" % entry.run))
        origin = h.origin(record, {}, copy=False)
        headers = copy_headers(record, origin, Tries(), now=now, not_before=now - _BEFORE)
        target = self.routes[record.topic]
        return Copy(entry, Outgoing(target, record.key, record.value, (*headers, *marks), record.partition))

    async def _webhook_id(self, record: Record) -> str:
        if record.topic != self.messages:
            return h.texts(record.headers).get(h.CE_ID, "")
        try:
            message = await self.codec.decode(MESSAGES, Message, record.value or b"")
        except Reject:
            return ""
        return message.webhook_id


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants something sent again, and why. `id` is that of this one resending."""

    id: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resender:
    """Sends webhooks again. `audit` writes audit records and returns once they are acknowledged."""

    sources: Sources
    producer: Producer
    audit: Callable[[Sequence[Audit]], Awaitable[None]]
    progress: Progress
    clock: Clock

    async def plan(self, entries: Sequence[Entry]) -> tuple[Counter[str], list[Refused]]:
        """Look all records up and change nothing; returns how many would go to which topic, and what cannot."""
        targets, refused = Counter[str](), list[Refused]()
        async for found in self.sources.copies(entries, "plan", self.clock()):
            if isinstance(found, Refused):
                refused.append(found)
            else:
                targets[found.record.topic] += 1
            self.progress("looking records up", targets.total() + len(refused), len(entries))
        return targets, refused

    async def run(self, entries: Sequence[Entry], order: Order) -> int:
        """Copy all that can be; returns how many. Each is audited before it is copied, and acknowledged at the end.

        Raises ConfigurationError where the broker refuses copies, naming how many.
        """
        copied, batch = 0, list[Copy]()
        async for found in self.sources.copies(entries, order.id, self.clock()):
            if isinstance(found, Copy):
                batch.append(found)
            if len(batch) == BATCH:
                copied += await self._send(batch, order, copied)
                self.progress("copying", copied, len(entries))
                batch = []
        return copied + await self._send(batch, order, copied)

    async def _send(self, batch: Sequence[Copy], order: Order, before: int) -> int:
        # Audited first: a crash in between leaves a trace of what was not done, never a deed without a trace.
        await self.audit([_audit(copy, order, self.clock()) for copy in batch])
        refused = await send_all(self.producer, [copy.record for copy in batch])
        if refused:
            raise ConfigurationError(
                f"{len(refused)} of {len(batch)} copies were refused, after {before} were written: {refused[0]}; what "
                "is still undeliverable can be sent again by the same command"
            )
        return len(batch)


def _audit(copy: Copy, order: Order, now: float) -> Audit:
    entry = copy.entry
    return Audit(
        action=RESENT,
        subject=entry.delivery.webhook_id,
        operator=order.operator,
        reason=order.reason,
        at_ms=int(now * 1000),
        details={
            "resend": order.id,
            "job": entry.job,
            "endpoint": entry.delivery.endpoint or "",
            "source": str(entry.source),
            "target": copy.record.topic,
        },
    )

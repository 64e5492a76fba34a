"""Settlement: every taken record comes to exactly one end (design section 6.1), and only an acknowledged one counts.

What each outcome leads to is decided in `core.retry`; this file produces it and waits for the broker's word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from pipeline.core import headers as h
from pipeline.core.deadletter import MAX_REASON, Cause, Grave, copy_headers, dead_headers
from pipeline.core.errors import Outcome, Reject
from pipeline.core.event import MAX_HOPS, Event
from pipeline.core.payloads import Failure, JobPayload, Payload
from pipeline.core.ports import Clock, Codec, Producer, RecordTooLarge
from pipeline.core.record import Headers, Outgoing
from pipeline.core.retry import DeadLetter, FailJob, Tier, Wait, describe, tier_for
from pipeline.runtime.plan import Plan
from pipeline.runtime.work import Item

MAX_ECHO = 65_536
"""The most characters of a request's metadata that its failure event repeats."""


class Ledger(Protocol):
    """Who is told when an item has come to its end, or cannot."""

    def settled(self, item: Item) -> None:
        """All that was owed for `item` is acknowledged."""
        ...

    def undeliverable(self, item: Item, error: Exception) -> None:
        """The broker refuses for good what was owed for `item`."""
        ...

    def untold(self, item: Item, error: Exception) -> None:
        """The dead letter of `item` is written, but the failure event that tells its owner was refused for its size."""
        ...


@dataclass(frozen=True, slots=True)
class Settler:
    """Produces what an outcome owes. `version` is the software's, for the people who read dead letters."""

    plan: Plan
    producer: Producer
    codec: Codec
    clock: Clock
    ledger: Ledger
    version: str

    async def outputs(self, item: Item, event: Event[Payload], payloads: Sequence[Payload]) -> None:
        """Settle by the handler's outputs, and what it has told beside them; with none, nothing is owed."""
        if item.emitted:
            await self.tell(item, event)
        records = []
        for index, payload in enumerate(payloads):
            child = event.derive(payload, self.plan.stage.name, index, len(payloads))
            records.append(await self._output(item, child))
        self._send(item, "output", records)

    async def tell(self, item: Item, event: Event[Payload]) -> None:
        """Encode what a try has told beside its outcome: whatever end comes is written together with it.

        Raises Defer and Reject of the codec: then the try counts as not told of, and its repetition tells of itself.
        """
        payloads, item.emitted = item.emitted, ()
        # Deferred, a try has the number of the one before, and what it tells is another event all the same.
        number = f"{event.tries.attempts + 1}" + (f".{event.tries.deferrals}" if event.tries.deferrals else "")
        name = f"{self.plan.stage.name}.try{number}"
        children = [event.derive(payload, name, index, len(payloads)) for index, payload in enumerate(payloads)]
        mark = (h.TRY, str(event.tries.attempts + 1).encode("ascii"))
        made = [await self._output(item, child) for child in children]
        item.told = (*item.told, *(replace(record, headers=(*record.headers, mark)) for record in made))

    def tell_now(self, item: Item) -> None:
        """Write what was told of a try that the item only waits after, in place. Refused, it waits for the end."""
        told, item.told = item.told, ()

        def heard(error: Exception | None, record: Outgoing) -> None:
            if error is not None:
                item.told = (*item.told, record)

        for record in told:
            self.producer.send(record, partial(heard, record=record))

    def answered(self, item: Item) -> None:
        """Settle by what is written already: nothing is owed."""
        item.end = "answered"
        self.ledger.settled(item)

    def ignored(self, item: Item) -> None:
        """Settle what asks for nothing: nothing is owed."""
        item.end = "ignored"
        self.ledger.settled(item)

    async def failure(self, item: Item, event: Event[Payload], decision: FailJob) -> None:
        """Settle by a failure event: the job ends, and its owner hears of it."""
        self._send(item, "failure", [await self._failure(item, event, decision.code, decision.reason, dead=False)])

    async def dead_letter(self, item: Item, event: Event[Payload], decision: DeadLetter, error: Exception) -> None:
        """Settle by the raw bytes in the dead letters, and a failure event marked recoverable."""
        now = self.clock()
        stage = self.plan.stage.name
        cause = error.__cause__ if isinstance(error, Outcome) and error.__cause__ is not None else error
        grave = Grave(
            stage, self.plan.group, decision.code, type(cause).__name__, decision.reason, self.version, failed_at=now
        )
        headers = dead_headers(item.record, event.origin, decision.tries, grave)
        told: list[Outgoing] = []
        try:
            # Past the loop guard nothing more is derived: with `failures` in the loop, that would go on for ever.
            if event.job.hops < MAX_HOPS:
                told.append(await self._failure(item, event, decision.code, decision.reason, dead=True))
        except Reject as unfit:
            # The raw record is safe; a failure event that fits no schema is a bug that must not cost it.
            headers = (*headers, (f"{h.DEAD}note", h.quoted(unfit.reason)[:MAX_REASON].encode()))
        self._send(item, "dead_letter", [self._copy(item, self.plan.dead_letters, headers), *told])

    def retry(self, item: Item, event: Event[Payload], decision: Wait) -> Tier:
        """Settle by a copy in the tier that fits the wait; returns the tier."""
        tiers = self.plan.stage.retry.tiers
        tier = tier_for(decision.not_before - self.clock(), tiers) or tiers[0]
        now, cause = self.clock(), Cause(decision.code, decision.reason)
        not_before = decision.not_before
        headers = copy_headers(item.record, event.origin, decision.tries, now=now, not_before=not_before, cause=cause)
        self._send(item, "retry", [self._copy(item, self.plan.retry_topic(tier), headers)])
        return tier

    def move(self, item: Item, event: Event[Payload], tier: Tier, not_before: float) -> None:
        """Settle by a copy in `tier` that waits on as before, not to be handled before `not_before`."""
        headers = copy_headers(item.record, event.origin, event.tries, now=self.clock(), not_before=not_before)
        self._send(item, "moved", [self._copy(item, self.plan.retry_topic(tier), headers)])

    async def _failure(self, item: Item, event: Event[Payload], code: str, reason: str, *, dead: bool) -> Outgoing:
        about = event.payload if isinstance(event.payload, JobPayload) else JobPayload()
        failure = Failure(
            endpoint=about.endpoint,
            metadata=_echo(about.metadata),
            stage=self.plan.stage.name,
            code=code,
            reason=reason,
            recoverable=dead,
            failed_at_ms=int(self.clock() * 1000),
        )
        kind = "dead" if dead else "failure"
        child = event.derive(failure, f"{self.plan.stage.name}.{kind}")
        return await self._record(item, child, "failures", self.plan.failures)

    async def _output(self, item: Item, child: Event[Payload]) -> Outgoing:
        declared = self.plan.output(child.payload)
        return await self._record(item, child, declared.noun, self.plan.output_topic(child.job.lane, declared))

    async def _record(self, item: Item, event: Event[Payload], noun: str, topic: str) -> Outgoing:
        value = await self.codec.encode(noun, event.payload)
        return Outgoing(topic, event.key, value, event.headers(noun, self.clock()), self._partition(item))

    def _copy(self, item: Item, topic: str, headers: Headers) -> Outgoing:
        return Outgoing(topic, item.record.key, item.record.value, headers, self._partition(item))

    def _partition(self, item: Item) -> int | None:
        return None if self.plan.stage.repartition else item.part.name.number

    def _send(self, item: Item, end: str, records: Sequence[Outgoing]) -> None:
        records = self._owed(item, end, records)
        if not records:
            self.ledger.settled(item)
            return
        item.owes(len(records))
        refused: list[tuple[Outgoing, Exception]] = []
        for record in records:
            self.producer.send(record, self._acknowledgement(item, record, refused))

    def _owed(self, item: Item, end: str, records: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Return all that an end owes: its records, and what was told beside it, which settles nothing by itself."""
        item.end = end if records else "nothing"
        if self.plan.stage.costly:
            records = [_stamped(record, item) for record in records]
        told, item.told = item.told, ()
        return [*records, *told] if told else records

    def _acknowledgement(
        self, item: Item, record: Outgoing, refused: list[tuple[Outgoing, Exception]]
    ) -> Callable[[Exception | None], None]:
        def delivered(error: Exception | None) -> None:
            if error is not None:
                refused.append((record, error))
            item.owed -= 1
            if item.owed == 0:
                self._acknowledged(item, refused)

        return delivered

    def _acknowledged(self, item: Item, refused: Sequence[tuple[Outgoing, Exception]]) -> None:
        for record, error in refused:
            if item.end == "dead_letter" and record.topic == self.plan.failures and isinstance(error, RecordTooLarge):
                # A sender decides how large a failure event gets (key, metadata), and one sender must not stop a stage.
                self.ledger.untold(item, error)
            else:
                self.ledger.undeliverable(item, error)
                return
        self.ledger.settled(item)


def _stamped(record: Outgoing, item: Item) -> Outgoing:
    return replace(record, headers=(*record.headers, h.settles(item.record)))


def _echo(metadata: dict[str, str]) -> dict[str, str]:
    # What a sender filled a whole record with would make the word of its failure too large to be written.
    size = sum(len(name) + len(text) for name, text in metadata.items())
    return metadata if size <= MAX_ECHO else {}


def refusal(item: Item, error: Exception) -> Exception:
    """Say what a refused write means for its record: Reject where another end is left, else the error itself."""
    if isinstance(error, RecordTooLarge) and item.end != "dead_letter":
        return Reject(f"what the record leads to ({item.end}) is larger than its topic takes: {describe(error)}")
    return error

"""One try of one record: decode, check what must hold before any handler, call the handler, cut it at its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from pipeline.core import headers as h
from pipeline.core.deadletter import original
from pipeline.core.errors import Fail, Reject
from pipeline.core.event import MAX_HOPS, Event, receive
from pipeline.core.patch import change_of, changed
from pipeline.core.payloads import JobPayload, Payload
from pipeline.core.ports import Clock, Codec, RecordDecoder
from pipeline.core.record import Record
from pipeline.core.stage import Context, Handler
from pipeline.runtime.deadline import Deadlines
from pipeline.runtime.plan import Plan
from pipeline.runtime.work import Item


@dataclass(frozen=True, slots=True)
class Attempt:
    """Tries records of one stage. Knows nothing of delivery: it returns payloads or raises.

    `foreign` decodes what first stood on one of the plan's foreign topics.
    """

    plan: Plan
    handler: Handler[Any, Any]
    codec: Codec
    clock: Clock
    foreign: RecordDecoder | None = None
    deadlines: Deadlines = field(init=False)
    open_topic: bool = field(init=False)

    def __post_init__(self) -> None:
        """Settle what is the same for all tries of the stage."""
        stage = self.plan.stage
        known = self.foreign.topics if self.foreign else ()
        if unknown := self.plan.foreign.difference(known):
            raise ValueError(f"stage {stage.name} has no decoder for {', '.join(sorted(unknown))}")
        object.__setattr__(self, "deadlines", Deadlines(stage.name, stage.timeout))
        object.__setattr__(self, "open_topic", stage.open_topic)

    async def decode(self, item: Item) -> Event[Payload]:
        """Turn the item's record into an event. Raises Reject or Defer.

        Its payload is `Nothing` where a record of a foreign topic asks for nothing.
        """
        return self._receive(item, await self.payload(item.record, copy=item.part.tier is not None))

    async def payload(self, record: Record, *, copy: bool) -> Payload:
        """Decode a record of one of the plan's topics; `copy`: it stands on a tier. Raises Reject or Defer."""
        if self.foreign is not None and (topic := self._foreign_topic(record, copy=copy)):
            first = original(record, _origin(record)) if copy else record
            return await self.foreign.decode(first, topic)
        if record.value is None:
            raise Reject("the record has a null value: there is nothing to handle", code="null_value")
        stood = _original_topic(record) if copy else record.topic
        declared = self.plan.declared(record.topic, stood)
        try:
            return await self.codec.decode(declared.noun, declared.payload, record.value)
        except Reject as unfit:
            if not stood or stood in self.plan.sources:
                raise
            told = f"{unfit.reason}; it first stood on {stood}, which {self.plan.stage.name} does not read now"
            raise Reject(told, code=unfit.code) from unfit.__cause__

    def foreign_topic(self, item: Item) -> str:
        """Name the foreign topic that the item's record first stood on; empty where it was one of ours.

        On a tier that may be one that is not read any more: its decoder knows best what that means.
        """
        return self._foreign_topic(item.record, copy=item.part.tier is not None)

    def _foreign_topic(self, record: Record, *, copy: bool) -> str:
        if self.foreign is None:
            return ""
        if not copy:
            return record.topic if record.topic in self.plan.foreign else ""
        topic = _original_topic(record)
        return topic if topic in self.plan.foreign or topic not in self.plan.sources else ""

    def bare(self, item: Item) -> Event[Payload]:
        """Make the event of a record that cannot be decoded, from its headers and position alone."""
        try:
            return self._receive(item, JobPayload())
        except Reject:  # of a replay's headers; `decode` has said so, or will
            return self._received(item, JobPayload())

    async def handle(self, event: Event[Payload], item: Item) -> Sequence[Payload]:
        """Call the handler. Raises what the handler raises, Fail past the job's deadline, TryTimeout when cut.

        A try that is refused while it runs, its task cancelled, raises that refusal whatever the handler did.
        """
        stage, now = self.plan.stage, self.clock()
        if event.job.hops >= MAX_HOPS:
            raise Reject(f"the event has passed {event.job.hops} stages: topics are wired in a loop", code="loop")
        if stage.enforce_deadline and event.job.late(now):
            raise Fail("the job's deadline has passed", code="deadline")
        deadline = None if event.job.deadline_ms is None else event.job.deadline_ms / 1000
        context = Context(event.id, event.tries.attempts + 1, deadline, self.clock, item.called_off, item.emit)
        item.task = task = asyncio.current_task()
        outputs: Sequence[Payload] = ()
        try:
            with self.deadlines.limit():
                outputs = await self.handler(event, context)
        except BaseException:
            if item.refusal is None:
                raise
        finally:
            item.task = None
        if item.refusal is None:
            return outputs
        if task is not None and task.uncancel():
            # Somebody else wants the whole worker to end.
            raise asyncio.CancelledError
        raise item.refusal

    def _receive(self, item: Item, payload: Payload) -> Event[Payload]:
        event = self._received(item, payload)
        if item.part.tier is not None and (change := change_of(h.texts(item.record.headers))) is not None:
            return changed(event, change)
        return event

    def _received(self, item: Item, payload: Payload) -> Event[Payload]:
        copy, record = item.part.tier is not None, item.record
        if self.foreign_topic(item):
            record = replace(record, headers=h.public(record.headers, copy=copy))
        event = receive(record, payload, open_topic=self.open_topic, copy=copy, now=self.clock())
        return event if item.tries is None else replace(event, tries=item.tries)


def contained() -> AbstractContextManager[None]:
    """Make an error of a cancellation that nobody asked this task for; it would end the worker in silence.

    It comes out of what a handler awaits and somebody else cancelled: a shared request, a task of a library.
    """
    return _CONTAINED


class _Contained(AbstractContextManager[None]):
    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let all pass but a stray cancellation."""
        if not isinstance(error, asyncio.CancelledError):
            return
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise RuntimeError("something that the handler awaited was cancelled") from error


_CONTAINED = _Contained()


def _origin(record: Record) -> h.Origin:
    return h.origin(record, h.texts(record.headers), copy=True)


def _original_topic(record: Record) -> str:
    return h.unquoted(h.texts(record.headers).get(h.ORIGINAL)).partition("/")[0]

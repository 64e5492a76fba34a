"""Decoding dead letters: the event that a record was before it died, as its stage would have read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.deadletter import original
from pipeline.core.errors import Defer, Outcome, Reject
from pipeline.core.event import Event, receive
from pipeline.core.letter import LetterHead
from pipeline.core.patch import change_of, changed
from pipeline.core.payloads import Payload
from pipeline.core.ports import Codec, RecordDecoder
from pipeline.core.record import Record
from pipeline.core.stage import Stage, Topic


@dataclass(frozen=True, slots=True)
class DeadTopic:
    """A dead-letter topic. `sources` tells by topic what its stage reads; empty `stage`: it is none of ours.

    `foreign` decodes what first stood on a topic of others.
    """

    topic: str
    stage: str = ""
    open_topic: bool = False
    sources: Mapping[str, Topic[Any]] = field(default_factory=dict)
    foreign: RecordDecoder | None = None


def dead_topics(prefix: str, stages: Iterable[Stage], foreign: RecordDecoder | None = None) -> dict[str, DeadTopic]:
    """Say what the dead-letter topics of `stages` hold, by name; `foreign` decodes what stood on topics of others."""
    found = {}
    for stage in stages:
        topic = names.dead_letter_topic(prefix, stage.name)
        sources = {names.topic(prefix, one.noun, lane): one for one in stage.sources for lane in one.lanes}
        found[topic] = DeadTopic(topic, stage.name, stage.open_topic, sources, foreign)
    return found


@dataclass(frozen=True, slots=True)
class LetterDecoder:
    """Decodes the letters of these topics, by name."""

    topics: Mapping[str, DeadTopic]
    codec: Codec

    async def event(self, record: Record, head: LetterHead) -> Event[Payload]:
        """Decode a letter. Raises Reject where nobody can, Defer where a registry is away."""
        dead = self.topics.get(record.topic)
        if dead is None or not dead.sources:
            raise Reject("no stage here reads what it was", code="no_stage")
        read = h.texts(record.headers)
        origin = h.origin(record, read, copy=True)
        stood = origin.position.topic
        foreign = dead.foreign if stood not in dead.sources else None
        try:
            if foreign is not None and stood in foreign.topics:
                payload = await foreign.decode(original(record, origin), stood)
                record = replace(record, headers=h.public(record.headers, copy=True))
            else:
                payload = await self._ours(record, dead, stood)
        except Outcome as unfit:
            raise unfit if isinstance(unfit, Defer | Reject) else Reject(unfit.reason, code=unfit.code) from unfit
        event = receive(record, payload, open_topic=dead.open_topic, copy=True, now=head.failed_at_ms / 1000)
        change = change_of(read)
        return event if change is None else changed(event, change)

    async def told(self, record: Record, head: LetterHead) -> LetterHead:
        """Return the head with the job that is in the value; one that cannot be decoded stays opaque."""
        try:
            event = await self.event(record, head)
        except (Reject, Defer):
            return head
        return head.told(event.job)

    async def _ours(self, record: Record, dead: DeadTopic, stood: str) -> Payload:
        if record.value is None:
            raise Reject("its value is null", code="null_value")
        declared = dead.sources.get(stood) or next(iter(dead.sources.values()))
        payload: Payload = await self.codec.decode(declared.noun, declared.payload, record.value)
        return payload

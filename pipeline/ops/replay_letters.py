"""Looking into a dead letter: what its value is, and what that tells of its job."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.core import headers as h
from pipeline.core.catalog import Catalog
from pipeline.core.errors import Reject
from pipeline.core.event import receive
from pipeline.core.job import Job
from pipeline.core.letter import LetterHead
from pipeline.core.payloads import JobPayload, Request
from pipeline.core.ports import Clock, Codec, RecordDecoder
from pipeline.core.record import Record
from pipeline.core.replay import Seen, Target, reaches, target
from pipeline.core.stage import Stage, Topic
from pipeline.ops.letter_decode import DeadTopic, LetterDecoder, dead_topics


@dataclass(frozen=True)
class Known:
    """The pipeline that letters are of. `foreign` names the topics of others that a stage reads.

    `partitions` counts those of all its topics, and of `others`, which are dead-letter topics of other programs.
    """

    prefix: str
    stages: Mapping[str, Stage]
    catalog: Catalog
    codec: Codec
    clock: Clock
    decoder: RecordDecoder | None = None
    foreign: Callable[[Stage], Collection[str]] = lambda _: ()
    embedding_model: str | None = None
    partitions: Mapping[str, int] = field(default_factory=dict)
    others: Sequence[str] = ()

    @cached_property
    def sources(self) -> Mapping[str, Mapping[str, Topic[Any]]]:
        """By the name of a stage, what it reads and what that carries."""
        return {
            name: {**dict.fromkeys(self.foreign(stage), stage.sources[0]), **self._dead[name].sources}
            for name, stage in self.stages.items()
        }

    @cached_property
    def targets(self) -> Mapping[str, Target]:
        """By the name of a stage, where what goes back to it is written."""
        return {name: target(stage, self.prefix) for name, stage in self.stages.items()}

    @cached_property
    def asking(self) -> Collection[str]:
        """The names of the stages whose work leads to a call of a model, by themselves or by what follows."""
        stages = self.stages.values()
        return {one.name for one in stages if any(last.costly and reaches(stages, one, last) for last in stages)}

    @cached_property
    def _dead(self) -> Mapping[str, DeadTopic]:
        return {one.stage: one for one in dead_topics(self.prefix, self.stages.values(), self.decoder).values()}

    async def look(self, record: Record, head: LetterHead, stage: Stage) -> tuple[LetterHead, Seen]:
        """Decode a letter of `stage`; its head may tell more then. Raises Defer where a registry is away."""
        try:
            return await (self._opaque if stage.open_topic else self._plain)(record, head, stage)
        except Reject as error:
            return head, Seen(why=error.reason)

    async def _plain(self, record: Record, head: LetterHead, stage: Stage) -> tuple[LetterHead, Seen]:
        """Decode the value alone: all else is told by the headers of our own topics."""
        if record.value is None:
            raise Reject("its value is null", code="null_value")
        declared = self.sources[stage.name].get(head.original.partition("/")[0]) or stage.sources[0]
        return head, Seen(await self.codec.decode(declared.noun, declared.payload, record.value), head.job)

    async def _opaque(self, record: Record, head: LetterHead, stage: Stage) -> tuple[LetterHead, Seen]:
        if head.family != "pipeline" and head.origin is not None:
            # What tells its place, once it is a copy: the id of a job may be made of it.
            record = replace(record, headers=(*record.headers, (h.ORIGINAL, str(head.origin).encode("ascii"))))
        event = await LetterDecoder({record.topic: self._dead[stage.name]}, self.codec).event(record, head)
        payload, job = event.payload, event.job
        if not isinstance(payload, JobPayload):
            return head, Seen(payload)
        return head.told(job), Seen(payload, job.id, self._deadline(payload, job))

    async def job_of(self, record: Record, source: Topic[Any]) -> str:
        """Tell whose a record of a source topic is; empty where it does not say, or cannot be decoded."""
        if not source.open_topic:
            read = h.texts(record.headers)
            return read.get(h.CE_SUBJECT) or read.get(h.CE_ID, "")
        try:
            payload = await self.codec.decode(source.noun, source.payload, record.value or b"")
        except Reject:
            return ""
        return receive(record, payload, open_topic=True, copy=False, now=self.clock()).job.id

    def _deadline(self, payload: JobPayload, job: Job) -> int | None:
        """Tell when a request is too late, as `preprocess` does: of all the limits the earliest."""
        if not isinstance(payload, Request):
            return job.deadline_ms
        kind = self.catalog.types.get(payload.type)
        allowed = (payload.deadline_ms, int(kind.deadline_seconds * 1000) if kind else None)
        ends = [job.accepted_at_ms + one for one in allowed if one is not None]
        return min([*ends, *([job.deadline_ms] if job.deadline_ms is not None else [])], default=None)

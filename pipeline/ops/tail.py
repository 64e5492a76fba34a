"""`tail`: what is written to the topics, a line for each record. Whatever a record is, it gets its line."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import Clock, Codec
from pipeline.core.record import Record
from pipeline.ops.explain_facts import Fact, event_of, fact_of, payload_of
from pipeline.ops.explain_layout import Layout
from pipeline.ops.explain_people import note_of
from pipeline.ops.explain_text import record as plain_record
from pipeline.ops.explain_words import at, sentence
from pipeline.ops.words import clean, when

SHORT = 8
"""How many characters of a job's id are shown: enough to tell jobs apart by eye, and `--job` takes as few."""

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are wanted; what is empty asks nothing. `jobs` may be the beginnings of ids.

    `writers` narrows a topic to what some stages write to it: others write to `failures` as well.
    """

    jobs: Collection[str] = ()
    types: Collection[str] = ()
    tenants: Collection[str] = ()
    stages: Collection[str] = ()
    writers: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def of_jobs(self) -> bool:
        """Whether it asks for what only a job has."""
        return bool(self.jobs or self.types or self.tenants or self.stages)

    def of(self, topics: Mapping[str, Collection[str]]) -> Wanted:
        """Narrow it to `topics`, each with the stages whose records are wanted, none for all."""
        return replace(self, writers=topics)

    def matches(self, fact: Fact) -> bool:
        """Whether a record is wanted."""
        job, writers = fact.job, self.writers.get(fact.position.topic, ())
        return (
            (not self.jobs or job.id.startswith(tuple(self.jobs)))
            and (not self.types or job.type in self.types)
            and (not self.tenants or job.tenant in self.tenants)
            and (not self.stages or fact.stage in self.stages)
            and (not writers or fact.stage in writers)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One record as it is shown. `bad` marks what a person may want to look at: failures, dead letters, junk."""

    text: str
    bad: bool
    plain: Mapping[str, Any]


def chosen(layout: Layout, names: Sequence[str]) -> dict[str, Collection[str]]:
    """Find the topics that are meant by the names of topics or stages, all where there are none.

    A stage stands for what it writes. Returns by topic the stages whose records are wanted, none for all of them.
    Raises ConfigurationError for a name that is neither.
    """
    found: dict[str, set[str]] = {}
    whole: set[str] = set()
    for name in names or [*layout.places, *layout.people]:
        topics = _topics(layout, name)
        if not topics and name not in layout.stages:
            known = ", ".join([*layout.stages, *sorted({layout.short(one) for one in layout.places})])
            raise ConfigurationError(f"{name!r} is neither a stage nor a topic of the pipeline: there are {known}")
        whole.update(topics)
        for place in () if topics else layout.places.values():
            if name in place.writers:
                found.setdefault(place.topic, set()).add(name)
    return {**{topic: sorted(stages) for topic, stages in found.items()}, **dict.fromkeys(sorted(whole), ())}


def _topics(layout: Layout, name: str) -> list[str]:
    """Find topics by a whole name, one without the prefix, or one without its lane."""
    known = [*layout.places, *layout.people]
    short = {topic: layout.short(topic) for topic in known}
    lanes = [place.topic for place in layout.places.values() if place.declared.laned and not place.copies]
    return [topic for topic in known if name in {topic, short[topic]}] or [
        topic for topic in lanes if short[topic].rpartition(".")[0] == layout.short(name)
    ]


def seconds(text: str, option: str) -> float:
    """Read a span such as `30`, `30s`, `5m`, `2h`, in seconds. Raises ConfigurationError naming the `option`."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(f"{option} {text[:80]!r} is no span of time: give one such as 30s, 5m, 2h")
    return float(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True, slots=True)
class Tail:
    """Makes lines of records."""

    layout: Layout
    codec: Codec
    clock: Clock
    wanted: Wanted

    async def lines(self, records: AsyncIterator[Record]) -> AsyncIterator[Line]:
        """Make a line of each record that is wanted, as it comes, for as long as they come."""
        async for record in records:
            line = await self._line(record)
            if line is not None:
                yield line

    async def _line(self, record: Record) -> Line | None:
        place = self.layout.places.get(record.topic)
        if place is None:
            return await self._people(record)
        payload, problem = await payload_of(self.codec, self.layout, place, record)
        event = event_of(record, place, self.layout, payload, self.clock())
        fact = fact_of(record, place, event, self.layout, problem)
        return line_of(fact, self.layout) if self.wanted.matches(fact) else None

    async def _people(self, record: Record) -> Line | None:
        noun = self.layout.people.get(record.topic)
        if noun is None:
            return None
        note = await note_of(self.codec, noun, record)
        if self.wanted.of_jobs and not (self.wanted.jobs and note.job.startswith(tuple(self.wanted.jobs))):
            return None
        where = at(self.layout, record.position)
        why = f"; cannot be decoded: {note.problem}" if note.problem else ""
        text = f"{when(note.at_ms)}  {where}  {noun}  {note.what} {note.text}{why}"
        plain = {"at_ms": note.at_ms, "what": note.what, "subject": note.subject, "operator": note.operator}
        plain |= {"reason": note.reason, "details": dict(note.details), "problem": note.problem}
        return Line(clean(text), bool(note.problem), {**place_of(record), "kind": noun, **plain})


def place_of(record: Record) -> dict[str, Any]:
    """Say where a record stands, as JSON has it."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def line_of(fact: Fact, layout: Layout) -> Line:
    """Make the line of one record of a job."""
    job, what = fact.job, f"{fact.stage} {fact.place.kind}".strip()
    who = " ".join(filter(None, (job.id[:SHORT], job.type or "-", job.tenant)))
    text = f"{when(fact.at_ms)}  {at(layout, fact.position)}  {what}  {who}  {sentence(fact)}"
    bad = bool(fact.problem) or fact.place.kind in {"failure", "dead letter"} or _unheard(fact)
    plain = {"at_ms": fact.at_ms, "job": job.id, "type": job.type, "tenant": job.tenant, "stage": fact.stage}
    return Line(clean(text), bad, {**plain, **plain_record(fact), "text": sentence(fact)})


def _unheard(fact: Fact) -> bool:
    return fact.says.get("outcome") in {"failed", "undeliverable"}

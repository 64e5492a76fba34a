"""`explain`: all topics are read once, to the ends they have now, and what concerns one job is told as a story.

Only the records of the job are kept, without their texts, so that memory is bounded however long the topics are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.control import ControlState, Entry
from pipeline.core.event import Event
from pipeline.core.payloads import Control, Payload, Request
from pipeline.core.ports import Clock, Codec, Reader
from pipeline.core.record import Commit, Partition, Record
from pipeline.core.retry import describe
from pipeline.core.trace import parse
from pipeline.ops.explain_facts import Fact, event_of, fact_of, letter_of, payload_of
from pipeline.ops.explain_layout import Layout, Place
from pipeline.ops.explain_line import Group
from pipeline.ops.explain_pauses import pauses, says_pause
from pipeline.ops.explain_people import Note, note_of
from pipeline.ops.explain_story import Story, tell
from pipeline.ops.explain_waits import Standing
from pipeline.ops.log_scan import Progress, Shelf, Unread, scan

MOST_FACTS = 10_000
"""The most records of one question that are kept; the rest is counted."""
MOST_JOBS = 20
"""The most jobs of one trace that are told of."""
CLOCK_MARGIN_MS = 3_600_000
"""How much earlier than asked records are looked for: the clocks of their writers may differ."""

STILL_SECONDS = 30.0
"""After so long without any progress the rest is given up, and said to be unread."""


class Offsets(Shelf, Protocol):
    """What is asked of the cluster beside records; the admin client, or the broker in memory."""

    async def commits(self, group: str, topics: Iterable[str], /) -> Mapping[Partition, Commit]:
        """Return where a group stands, and what its commits say besides."""
        ...

    async def members(self, group: str, /) -> Collection[str]:
        """Name the members of a group."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the id of a job, a trace, a webhook or a dead letter, and of what was written since (epoch ms)."""

    id: str
    since_ms: int | None = None
    show_payload: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The stories of all jobs that the id is of, and what of the topics could not be read."""

    stories: tuple[Story, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """Finds the records that an id is of. Pure."""

    ids: frozenset[str]
    needles: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Spell the ids as headers have them."""
        object.__setattr__(self, "needles", tuple(one.encode("utf-8", "replace") for one in sorted(self.ids)))

    def may_hold(self, record: Record, place: Place) -> bool:
        """Look quickly: False only where the record is certainly none of them."""
        if place.declared.open_topic or letter_of(record, place) in self.ids:
            return True
        # Together, since each look costs: this is done for every record of every topic.
        told = b"\n".join([value for _, value in record.headers if value])
        return any(needle in told for needle in self.needles)

    def holds(self, event: Event[Payload], letter: str) -> bool:
        """Whether an event, or the dead letter that it is, is one of them."""
        return not self.ids.isdisjoint((event.job.id, event.id, event.parent or "", event.trace.trace_id, letter))


def asked(text: str) -> frozenset[str]:
    """Read the id that a person gave: as it is, in lower case, and the trace of a whole `traceparent`."""
    plain = text.strip()
    span = parse(plain)
    return frozenset(filter(None, (plain, plain.lower(), span.trace_id if span else "")))


@dataclass(slots=True)
class _Found:
    """What a sweep has found so far."""

    facts: list[Fact] = field(default_factory=list)
    beyond: int = 0
    words: list[Entry] = field(default_factory=list)
    unread: Collection[Partition] = ()

    def add(self, fact: Fact) -> None:
        if len(self.facts) < MOST_FACTS:
            self.facts.append(fact)
        else:
            self.beyond += 1


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The topics as they were when the question came. `spans` is what is to be read of each partition."""

    groups: Mapping[str, Group]
    spans: Mapping[Partition, range]
    remarks: tuple[str, ...]

    def of(self, topics: Collection[str]) -> dict[Partition, range]:
        """Return the spans of some topics."""
        return {name: span for name, span in self.spans.items() if name.topic in topics}


@dataclass(frozen=True, slots=True)
class Explainer:
    """Answers questions. `reader` reads committed records; see `Standing` for the last but one."""

    layout: Layout
    reader: Reader
    offsets: Offsets
    codec: Codec
    clock: Clock
    model_of: Callable[[str], str] = lambda _: ""
    endpoint_of: Callable[[str], str] = lambda _: ""
    progress: Progress = lambda *_: None

    async def answer(self, question: Question) -> Answer:
        """Read all topics, and tell the stories of the jobs that the id is of; none where it is of none.

        Raises what the ports raise: Halt where a topic may not be read.
        """
        ids = asked(question.id)
        snapshot = await self._snapshot(question.since_ms)
        found = await self._sweep(Search(ids), snapshot, question)
        jobs = list(dict.fromkeys(fact.job.id for fact in found.facts))
        if jobs and not ids.issuperset(jobs):
            # The id is of a part of the job only, or of several jobs: now all that is theirs.
            found = await self._sweep(Search(frozenset(jobs[:MOST_JOBS])), snapshot, question)
        notes, said = await self._notes(snapshot, found.facts) if jobs else ([], [])
        now = self.clock()
        control = ControlState().fold(found.words, now)
        past = tuple(pauses(said))
        standing = Standing(self.layout, now, snapshot.groups, control, past, self.model_of, self.endpoint_of)
        told = [_story(job, found.facts, notes, standing) for job in jobs[:MOST_JOBS]]
        return Answer(tuple(told), (*snapshot.remarks, *_left_out(found, len(jobs))))

    async def _snapshot(self, since_ms: int | None) -> _Snapshot:
        """Look once where all topics begin and end: each look waits for what the reader has asked for before."""
        topics, people = list(self.layout.places), list(self.layout.people)
        counts = await self.offsets.partitions([*topics, *people])
        begins = await self.offsets.begin_offsets([*topics, *people])
        # Before the ends are: what a group has settled by now has its outcome below them.
        groups, remarks = await self._groups(begins)
        starts = dict(begins)
        if since_ms is not None:
            starts |= await self.offsets.offsets_at(topics, max(since_ms - CLOCK_MARGIN_MS, 0))
        ends = await self.reader.ends([Partition(name, number) for name in counts for number in range(counts[name])])
        spans = {name: range(starts.get(name, 0), end) for name, end in ends.items()}
        return _Snapshot(groups, spans, (*_missing(counts, [*topics, *people]), *remarks))

    async def _groups(self, begins: Mapping[Partition, int]) -> tuple[dict[str, Group], list[str]]:
        """Look where all groups stand; returns in sentences where one does not."""
        stages = list(self.layout.stages)
        looks = (self._group(stage, begins) for stage in stages)
        known = dict(zip(stages, await asyncio.gather(*looks, return_exceptions=True), strict=True))
        groups, remarks = {}, []
        for stage, found in known.items():
            if isinstance(found, Group):
                groups[stage] = found
            elif isinstance(found, Exception):
                told = f"where the group of {stage} stands cannot be told, nor what waits for it"
                remarks.append(f"{told}: {describe(found)}")
        return groups, remarks

    async def _group(self, stage: str, begins: Mapping[Partition, int]) -> Group:
        group = names.group(self.layout.prefix, stage)
        commits = await self.offsets.commits(group, self.layout.inputs(stage))
        try:
            members = len(await self.offsets.members(group))
        except Exception:
            return Group(commits, begins)  # a group that never was, or that we may not look at
        return Group(commits, begins, members)

    # -------------------------------------------------------------- the records

    async def _sweep(self, search: Search, snapshot: _Snapshot, question: Question) -> _Found:
        found, control = _Found(), names.topic(self.layout.prefix, "control")
        spans = snapshot.of({*self.layout.places, control})
        try:
            async for record in self._records(spans, "reading the topics"):
                place = self.layout.places.get(record.topic)
                if place is None:
                    found.words += await self._words(record)
                elif search.may_hold(record, place):
                    fact = await self._fact(record, place, search, show=question.show_payload)
                    if fact is not None:
                        found.add(fact)
        except Unread as error:
            found.unread = error.partitions
        return found

    async def _records(self, spans: Mapping[Partition, range], what: str) -> AsyncGenerator[Record, None]:
        told = partial(self.progress, what)
        async with aclosing(scan(self.reader, spans, told, patience=STILL_SECONDS)) as batches:
            async for records in batches:
                for record in records:
                    yield record

    async def _words(self, record: Record) -> list[Entry]:
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            return [(key, None)]
        try:
            return [(key, await self.codec.decode("control", Control, record.value))]
        except Exception:
            return []  # junk on the topic changes nothing, as for the workers

    async def _notes(self, snapshot: _Snapshot, facts: Iterable[Fact]) -> tuple[list[Note], list[Note]]:
        """Find what people did about the jobs of these facts, and all that they paused and resumed."""
        ids, latest, said = _ids(facts), dict[object, Note](), deque[Note](maxlen=MOST_FACTS)
        with suppress(Unread):
            async for record in self._records(snapshot.of(self.layout.people), "reading what people did"):
                noun = self.layout.people[record.topic]
                note = await note_of(self.codec, noun, record)
                if says_pause(note):
                    said.append(note)
                elif note.concerns(ids) and len(latest) < MOST_FACTS:
                    # Of the compacted topics the last word counts, compacted or not.
                    latest[record.position if noun == "audit" else (noun, record.key)] = note
        return list(latest.values()), list(said)

    async def _fact(self, record: Record, place: Place, search: Search, *, show: bool) -> Fact | None:
        payload, problem, now = None, "", self.clock()
        named = _by_payload(record, place)
        if named:
            payload, problem = await payload_of(self.codec, self.layout, place, record)
        event = event_of(record, place, self.layout, payload, now)
        if not search.holds(event, letter_of(record, place)):
            return None
        if not named:
            payload, problem = await payload_of(self.codec, self.layout, place, record)
            event = event_of(record, place, self.layout, payload, now)
        return fact_of(record, place, event, self.layout, problem, show=show)


def _by_payload(record: Record, place: Place) -> bool:
    """Whether a record's payload has a part in its job's id; else it need be decoded only once that is known."""
    if not place.declared.open_topic or place.kind == "foreign":
        return False
    return issubclass(place.declared.payload, Request) or any(name == h.CE_ID for name, _ in record.headers)


def _ids(facts: Iterable[Fact]) -> frozenset[str]:
    """Name all that people's words may be about."""
    known: set[str] = set()
    for fact in facts:
        known.update((fact.job.id, fact.event, fact.letter, fact.replay.get("id", "")))
    return frozenset(known - {""})


def _story(job: str, facts: Iterable[Fact], notes: Iterable[Note], standing: Standing) -> Story:
    own = [fact for fact in facts if fact.job.id == job]
    ids = _ids(own)
    return tell(job, own, standing, [note for note in notes if note.concerns(ids)])


def _missing(counts: Mapping[str, int], topics: Sequence[str]) -> Iterator[str]:
    gone = [topic for topic in topics if topic not in counts]
    if len(gone) == len(topics):
        yield "none of the topics exists: is PIPELINE_TOPIC_PREFIX right? `pipeline topics create` makes them"
    elif gone:
        yield f"what is not there cannot be told of: {', '.join(gone)} (`pipeline topics create` makes them)"


def _left_out(found: _Found, jobs: int) -> Iterator[str]:
    if jobs > MOST_JOBS:
        yield f"the id is of {jobs} jobs: the first {MOST_JOBS} are told of; ask for the others by their own ids"
    if found.beyond:
        yield f"{found.beyond} more records are theirs than the {MOST_FACTS} that are kept"
    if found.unread:
        places = ", ".join(sorted(f"{name.topic}:{name.number}" for name in found.unread))
        yield f"not read to the end, for Kafka did not serve it: {places}"

"""The plan of a replay: what would go where, what is refused and why, and what it will cost. Changes nothing."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import NamedTuple

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter import DEAD_SUFFIX, LetterHead, read_head
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.letter_state import LetterState
from pipeline.core.ports import Reader
from pipeline.core.record import Partition, Position, Record
from pipeline.core.replay import (
    MAXIMUM,
    OWN,
    REFUSALS,
    REPLAYED,
    Case,
    Rules,
    Seen,
    former,
    reaches,
    refusal,
)
from pipeline.core.replay_cost import NOTHING, Cost, asking, indexing
from pipeline.core.stage import Stage
from pipeline.ops.letter_states import Book
from pipeline.ops.log_scan import Progress, scan
from pipeline.ops.replay_letters import Known

BY_KEY = -1
"""The partition of what its key will place."""
AGES = ((60.0, "under a minute"), (3_600.0, "under an hour"), (86_400.0, "under a day"), (604_800.0, "under a week"))
OLDER = "a week or more"

Offsets = dict[Partition, "array[int]"]


class Place(NamedTuple):
    """Where letters go: a stage, its topic, and the partition; `BY_KEY` where the key chooses."""

    stage: str
    topic: str
    partition: int

    def told(self, letters: int) -> dict[str, object]:
        """Tell it as JSON; of what its key will place there is no partition."""
        number = None if self.partition == BY_KEY else self.partition
        return {"stage": self.stage, "topic": self.topic, "partition": number, "letters": letters}


class Reason(NamedTuple):
    """Why letters died: the stage, and the reason class."""

    stage: str
    code: str


@dataclass(slots=True)
class Tally:
    """How many letters, by what. `undecodable` ones go all the same; `done` went with an earlier part of the replay."""

    selected: int = 0
    done: int = 0
    undecodable: int = 0
    places: Counter[Place] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    ages: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    cost: Cost = NOTHING

    @property
    def going(self) -> int:
        """How many letters would go."""
        return self.reasons.total()

    def goes(self, why: Reason, age: str) -> None:
        """Count a letter that would go."""
        self.reasons[why] += 1
        self.ages[age] += 1

    def told(self) -> dict[str, object]:
        """Tell it as JSON."""
        return {
            "selected": self.selected,
            "going": self.going,
            "done": self.done,
            "undecodable": self.undecodable,
            "places": [place.told(count) for place, count in sorted(self.places.items())],
            "reasons": [{**reason._asdict(), "letters": count} for reason, count in self.reasons.most_common()],
            "ages": {name: self.ages[name] for _, name in (*AGES, (0.0, OLDER)) if self.ages[name]},
            "refused": dict(self.refused.most_common()),
            "cost": asdict(self.cost),
        }


class Ref(NamedTuple):
    """A letter that is marked when its job is done again. `replays` is how often it was replayed until then."""

    id: str
    position: Position
    replays: int
    run: int
    why: Reason
    age: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. Letters are known by their place; below `ends` all were looked at.

    `chosen` go back, `worn` are quarantined. Of a re-run, `sources` are the records that go instead, by their place,
    with their job, and `jobs` the letters of each.
    """

    rules: Rules
    ends: Mapping[Partition, int]
    tally: Tally
    chosen: Offsets
    worn: Offsets
    sources: Mapping[Partition, Mapping[int, str]]
    jobs: Mapping[str, Sequence[Ref]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant, and how many at the most. `ends` bounds the look, where an earlier one is repeated."""

    filter: LetterFilter = LetterFilter()
    limit: int | None = None
    ends: Mapping[Partition, int] | None = None


_Stages = tuple[Stage | None, Stage | None]


class Planner:
    """Makes one plan."""

    def __init__(self, known: Known, reader: Reader, book: Book, rules: Rules, progress: Progress) -> None:
        """Look at nothing yet. Raises ConfigurationError for names of stages that do not exist."""
        for option, name in (("--to", rules.to), ("--from", rules.source)):
            if name and name not in known.stages:
                raise ConfigurationError(
                    f"{option} {name}: there is no such stage; there are {', '.join(known.stages)}"
                )
        self._known = known
        self._reader = reader
        self._book = book
        self._rules = rules
        self._progress = progress
        self._tally = Tally()
        self._chosen: Offsets = {}
        self._worn: Offsets = {}
        self._jobs: dict[str, list[Ref]] = {}
        self._failures: dict[str, str] = {}
        self._going = 0
        self._easy = LetterFilter()

    async def plan(self, wanted: Wanted) -> Plan:
        """Look at all dead letters up to where their topics end now. Raises Defer where a schema registry is away."""
        self._easy = wanted.filter.headers_only()
        await self._book.refresh()
        ends = await self._reader.ends(self._dead())
        if wanted.ends is not None:
            ends = {name: min(end, wanted.ends.get(name, 0)) for name, end in ends.items()}
        async for records in self._scan("dead letters", ends):
            for record in records:
                await self._letter(record, wanted)
        sources = await self._sources() if self._rules.source else {}
        return Plan(self._rules, ends, self._tally, self._chosen, self._worn, sources, self._jobs)

    def _scan(self, what: str, ends: Mapping[Partition, int]) -> AsyncGenerator[Sequence[Record], None]:
        spans = {name: range(end) for name, end in ends.items()}
        return scan(self._reader, spans, partial(self._progress, what))

    def _dead(self) -> list[Partition]:
        begin = f"{self._known.prefix}."
        ours = [name for name in self._known.partitions if name.startswith(begin) and name.endswith(DEAD_SUFFIX)]
        topics = dict.fromkeys((*ours, *self._known.others))
        return [Partition(name, number) for name in topics for number in range(self._known.partitions[name])]

    # -------------------------------------------------------------- one letter

    async def _letter(self, record: Record, wanted: Wanted) -> None:
        head, own = self._head(record)
        state = self._book.states.of(head)
        if state.state == REPLAYED:
            self._failures[head.id] = head.fingerprint
        if not self._easy.matches(head, state.state):
            return
        stage = own if own and head.family == "pipeline" else self._known.stages.get(self._rules.to) or own
        seen = Seen(why="it is of no stage")
        if stage is not None:
            head, seen = await self._known.look(record, head, stage)
        if not wanted.filter.matches(head, state.state):
            return
        case = self._case(record, head, state, seen, (own, stage))
        self._judge(case, wanted.limit)

    def _head(self, record: Record) -> tuple[LetterHead, Stage | None]:
        head = read_head(record)
        stage = self._known.stages.get(head.stage)
        if stage is not None and stage.open_topic:
            head = read_head(record, open_topic=True)
        return head, stage

    def _case(self, record: Record, head: LetterHead, state: LetterState, seen: Seen, stages: _Stages) -> Case:
        own, stage = stages
        first = self._known.stages.get(self._rules.source)
        follows = first is None or (own is not None and reaches(self._known.stages.values(), first, own))
        stage = first if first and stage else stage
        before = self._failures.get(head.former)
        return Case(
            head,
            state,
            stage,
            seen,
            self._known.sources[stage.name] if stage else {},
            self._known.partitions.get(self._known.targets[stage.name].topic, 0) if stage else 0,
            (before, self._book.states.of_id(head.former).at_ms) if before else None,
            former(record)[2] if head.replay_id and head.family == "pipeline" else None,
            follows,
        )

    def _judge(self, case: Case, limit: int | None) -> None:
        tally = self._tally
        tally.selected += 1
        word = refusal(case, self._rules, self._known.clock())
        if word == OWN:
            tally.done += 1
        elif not word and limit is not None and tally.done + self._going >= limit:
            word = "limit"
        if word:
            tally.refused[word] += 1
            if word == MAXIMUM:
                _add(self._worn, case.head.position)
        else:
            self._take(case)

    def _take(self, case: Case) -> None:
        head, stage = case.head, case.stage
        if stage is None:
            return
        self._going += 1
        tally, why, age = self._tally, Reason(head.stage, head.code), self._age(head)
        if self._rules.source:
            self._jobs.setdefault(case.job, []).append(Ref(head.id, head.position, case.replays, head.run, why, age))
            return
        tally.goes(why, age)
        tally.undecodable += bool(case.seen.why)
        _add(self._chosen, head.position)
        tally.places[self._at(stage, head.position.partition)] += 1
        tally.cost += self._cost(stage, case.seen, head.type)

    def _at(self, stage: Stage, number: int) -> Place:
        there = self._known.targets[stage.name]
        return Place(there.stage, there.topic, BY_KEY if there.by_key else number)

    def _age(self, head: LetterHead) -> str:
        age = self._known.clock() - head.failed_at_ms / 1000
        return next((name for limit, name in AGES if age < limit), OLDER)

    def _cost(self, stage: Stage, seen: Seen, kind: str) -> Cost:
        if stage.name in self._known.asking:
            return asking(seen.payload, kind, self._rules.patch, self._known.catalog)
        return indexing(seen.payload, self._known.embedding_model, self._known.catalog)

    # -------------------------------------------------------------- from an earlier stage

    async def _sources(self) -> Mapping[Partition, Mapping[int, str]]:
        """Find the newest record of each job on the source topics of the stage that it is done again from."""
        stage = self._known.stages[self._rules.source]
        read = self._known.sources[stage.name]
        kept = None if stage.repartition else {ref.position.partition for refs in self._jobs.values() for ref in refs}
        parts = [
            Partition(topic, number)
            for topic in read
            for number in range(self._known.partitions.get(topic, 0))
            if kept is None or number in kept
        ]
        ends = await self._reader.ends(parts) if self._jobs else {}
        found: dict[str, tuple[Record, Cost]] = {}
        async for records in self._scan(f"records of what {stage.name} reads", ends):
            for record in records:
                job = await self._known.job_of(record, read[record.topic])
                if job in self._jobs:
                    found[job] = record, await self._again(record, stage)
        return self._place(found, stage)

    async def _again(self, record: Record, stage: Stage) -> Cost:
        head, seen = await self._known.look(record, read_head(record, open_topic=stage.open_topic), stage)
        return self._cost(stage, seen, head.type)

    def _place(self, found: Mapping[str, tuple[Record, Cost]], stage: Stage) -> Mapping[Partition, Mapping[int, str]]:
        tally = self._tally
        for job in [job for job in self._jobs if job not in found]:
            tally.refused["not_kept"] += len(self._jobs.pop(job))
        for ref in (ref for refs in self._jobs.values() for ref in refs):
            tally.goes(ref.why, ref.age)
        sources: dict[Partition, dict[int, str]] = {}
        for job, (record, cost) in found.items():
            sources.setdefault(Partition(record.topic, record.partition), {})[record.offset] = job
            tally.places[self._at(stage, record.partition)] += 1
            tally.cost += cost
        return sources


def _add(offsets: Offsets, place: Position) -> None:
    offsets.setdefault(Partition(place.topic, place.partition), array("q")).append(place.offset)


def sentences(refused: Mapping[str, int]) -> list[str]:
    """Say of each refusal how many letters it holds back, why, and what helps; the most frequent first."""
    counted = sorted(refused.items(), key=lambda one: (-one[1], one[0]))
    return [f"{count} {REFUSALS[word] if count > 1 else _of_one(REFUSALS[word])}" for word, count in counted]


def _of_one(text: str) -> str:
    verb, space, rest = text.partition(" ")
    return {"are": "is", "were": "was", "have": "has", "carry": "carries", "do": "does"}.get(verb, verb) + space + rest

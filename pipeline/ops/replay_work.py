"""What one step of a replay writes: the copy that goes back, and the marks of the letters that it stands for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.headers import Origin
from pipeline.core.letter import LetterHead, read_head
from pipeline.core.patch import Patch
from pipeline.core.payloads import Letter
from pipeline.core.record import Outgoing, Partition, Position, Record
from pipeline.core.replay import NEVER, OWN, QUARANTINED, REPLAYED, Marks, closed, copy, former, replays
from pipeline.core.replay_patch import NO_PATCH
from pipeline.ops.letter_states import Book, run_key
from pipeline.ops.replay_letters import Known
from pipeline.ops.replay_plan import Offsets, Plan, Ref


@dataclass(frozen=True, slots=True)
class Person:
    """Who replays, and why."""

    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An entry of the book: its key, what it says, and the number of its partition; None leaves that to the key."""

    key: str
    letter: Letter
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a record at `place` leads to: its copy, None where letters are quarantined, and the marks that say so."""

    place: Position
    copy: Outgoing | None
    marks: Sequence[Mark]
    letters: int = 1


Step = Work | str
"""Work, or by one of `core.replay.REFUSALS` why there is none any more; empty where the plan means no such record."""


class Steps:
    """Makes the work of a plan from the records that it names. Looks at the book again: letters may have changed."""

    def __init__(self, plan: Plan, known: Known, book: Book, person: Person) -> None:
        """Nothing is read."""
        self._plan = plan
        self._known = known
        self._book = book
        self._person = person
        rules = plan.rules
        self._patch, self._patched, self._rerun = rules.patch, rules.patched, rules.rerun

    @property
    def spans(self) -> Mapping[Partition, range]:
        """What has to be read."""
        plan = self._plan
        if plan.rules.source:
            return {name: range(min(jobs), max(jobs) + 1) for name, jobs in plan.sources.items()}
        return {name: _span(plan.chosen.get(name), plan.worn.get(name)) for name in {*plan.chosen, *plan.worn}}

    async def of(self, record: Record, now: float) -> Step:
        """Make the work of a record at `now`. Raises Defer where a schema registry is away."""
        name = Partition(record.topic, record.partition)
        if self._plan.rules.source:
            job = self._plan.sources.get(name, {}).get(record.offset)
            return self._again(record, job, now) if job else ""
        if _has(self._plan.chosen, name, record.offset):
            return await self._back(record, now)
        return self._worn(record, now) if _has(self._plan.worn, name, record.offset) else ""

    # -------------------------------------------------------------- a letter goes back

    async def _back(self, record: Record, now: float) -> Step:
        rules, head = self._plan.rules, self._head(record)
        ours, origin, letter = head.family == "pipeline", head.origin, head.id
        state = self._book.states.of_id(letter)
        stage = (self._known.stages.get(head.stage) if ours else None) or self._known.stages.get(rules.to)
        if word := closed(state, rules):
            return "" if word == OWN else word
        if stage is None or origin is None:
            return "stage"
        run, patch, deadline_ms = former(record) if ours and head.replay_id else NEVER
        text = _text(self._patch.over(patch)) if self._patched or patch is not NO_PATCH else ""
        if self._rerun:
            if head.opaque:
                head, _ = await self._known.look(record, head, stage)
            run = self._next_run(head.job, max(head.run, run or 0))
        count = replays(head, state) + 1
        marks = Marks(rules.replay, letter, count, run, text, self._deadline(now) or deadline_ms, head.position)
        made = copy(record, origin, self._known.targets[stage.name], marks, int(now * 1000))
        mark = self._mark(REPLAYED, head.position, marks, head.job, now)
        return Work(record.position, made, self._with_run([mark], head.job, run, now))

    def _worn(self, record: Record, now: float) -> Step:
        head = self._head(record)
        state = self._book.states.of(head)
        if closed(state, self._plan.rules):
            return ""
        marks = Marks(state.replay or head.replay_id, head.id, replays(head, state))
        return Work(record.position, None, [self._mark(QUARANTINED, head.position, marks, head.job, now)])

    def _head(self, record: Record) -> LetterHead:
        head = read_head(record)
        stage = self._known.stages.get(head.stage)
        return read_head(record, open_topic=True) if stage is not None and stage.open_topic else head

    # -------------------------------------------------------------- a job is done again

    def _again(self, record: Record, job: str, now: float) -> Step:
        rules = self._plan.rules
        refs = [(ref, closed(self._book.states.of_id(ref.id), rules)) for ref in self._plan.jobs.get(job, ())]
        left = [ref for ref, word in refs if not word]
        if not left:
            return next((word for _, word in refs if word != OWN), "")
        run = self._next_run(job, max(ref.run for ref in left))
        count = max(ref.replays for ref in left) + 1
        first = left[0]
        marks = Marks(rules.replay, first.id, count, run, _text(self._patch), self._deadline(now), first.position)
        origin = Origin(record.position, record.timestamp_ms)
        made = copy(record, origin, self._known.targets[rules.source], marks, int(now * 1000))
        marked = [self._mark(REPLAYED, ref.position, self._of_letter(marks, ref), job, now) for ref in left]
        return Work(record.position, made, self._with_run(marked, job, run, now), len(left))

    @staticmethod
    def _of_letter(marks: Marks, ref: Ref) -> Marks:
        return Marks(marks.replay, ref.id, ref.replays + 1, marks.run)

    # -------------------------------------------------------------- both

    def _next_run(self, job: str, known: int) -> int:
        return max(self._book.states.runs.get(job, 0), known) + 1

    def _deadline(self, now: float) -> int | None:
        extend = self._plan.rules.extend
        return None if extend is None else int((now + extend) * 1000)

    def _with_run(self, marked: Sequence[Mark], job: str, run: int | None, now: float) -> Sequence[Mark]:
        if not self._rerun or run is None:
            return marked
        # Noted at once: another letter of the job in the same transaction is the run after this one.
        self._book.states.runs[job] = run
        person, replay = self._person, self._plan.rules.replay
        letter = Letter(
            state="rerun",
            job=job,
            operator=person.operator,
            reason=person.reason,
            at_ms=int(now * 1000),
            replay=replay,
            run=run,
        )
        return [*marked, Mark(run_key(job), letter)]

    def _mark(self, state: str, place: Position, marks: Marks, job: str, now: float) -> Mark:
        # Not validated: each field comes from a value of its type.
        letter = Letter.model_construct(
            state=state,  # type: ignore[arg-type]  # one of its names
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            job=job,
            operator=self._person.operator,
            reason=self._person.reason,
            at_ms=int(now * 1000),
            assignee=self._book.states.of_id(marks.letter).assignee,
            replay=marks.replay,
            replays=marks.count,
            run=marks.run or 0,
        )
        return Mark(marks.letter, letter, place.partition)


def _text(patch: Patch) -> str:
    return patch.text() if patch != NO_PATCH else ""


def _has(offsets: Offsets, name: Partition, offset: int) -> bool:
    known = offsets.get(name)
    if known is None:
        return False
    index = bisect_left(known, offset)
    return index < len(known) and known[index] == offset


def _span(*known: array[int] | None) -> range:
    there = [one for one in known if one]
    return range(min(one[0] for one in there), max(one[-1] for one in there) + 1)

"""The story of one job, from what its records say: a timeline, what it waits for now, and how it stands. Pure.

Whatever the records are, junk included, a story is told and nothing is raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.control import describe_scope
from pipeline.core.headers import Tries
from pipeline.core.record import Position
from pipeline.ops.explain_facts import Fact
from pipeline.ops.explain_people import TAKEN_BACK, Note
from pipeline.ops.explain_waits import Standing, Waiting, because, by, held, waits
from pipeline.ops.explain_words import at, reason, sentence
from pipeline.ops.words import counted, lasted, when

MOST_LINKS = 64
"""How far the causes of a record are followed: farther than any job goes, and an end where junk makes a circle."""

OPEN = "open"
DEAD_STATES = frozenset({OPEN, "assigned", "quarantined"})
"""The states of a dead letter in which a person has still to do something."""

_RANK = {"request": 0, "document": 0, "foreign": 0, "output": 1, "retry": 2, "dead letter": 3, "failure": 4}


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. `after_ms` is how long after the line before; `again` marks a repetition."""

    at_ms: int
    what: str
    stage: str
    where: str
    text: str
    after_ms: int = 0
    again: bool = False
    fact: Fact | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter of the job, and in which state it is."""

    id: str
    stage: str
    where: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a job. `status` is one word; `remarks` are what else a person should know."""

    job: str
    status: str
    about: Mapping[str, Any]
    moments: tuple[Moment, ...]
    waits: tuple[Waiting, ...]
    letters: tuple[Letter, ...]
    remarks: tuple[str, ...]


def tell(job: str, facts: Iterable[Fact], standing: Standing, notes: Sequence[Note] = ()) -> Story:
    """Tell the story of a job from its facts, in any order, and from what people did."""
    ordered = _ordered(facts)
    known = [fact for _, fact in ordered]
    again = _repetitions(known)
    letters = tuple(_letters(known, standing, notes))
    counting = [fact for fact in known if fact.position not in again]
    waiting = tuple(waits(counting, standing))
    moments = [*_moments(ordered, again, standing), *_done(notes), *_paused(counting, standing)]
    return Story(
        job=job,
        status=_status(known, waiting, letters, standing),
        about=_about(known),
        moments=tuple(_timed(moments)),
        waits=waiting,
        letters=letters,
        remarks=tuple(_remarks(known, again, standing)),
    )


# ------------------------------------------------------------------ the order of time


def _ordered(facts: Iterable[Fact]) -> list[tuple[int, Fact]]:
    """Put facts in order. Clocks differ: nothing comes before what it was made of."""
    known = {fact.position: fact for fact in facts}
    timed = [(_not_before_its_cause(fact, known), fact) for fact in known.values()]
    return sorted(timed, key=lambda one: (one[0], one[1].job.hops, _RANK.get(one[1].place.kind, 9), one[1].position))


def _not_before_its_cause(fact: Fact, known: Mapping[Position, Fact]) -> int:
    latest, one = fact.at_ms, fact
    for _ in range(MOST_LINKS):
        cause = known.get(_made_of(one))
        if cause is None or cause is one:
            break
        latest, one = max(latest, cause.at_ms), cause
    return latest


def _made_of(fact: Fact) -> Position:
    if fact.source is not None:
        return fact.source
    return fact.origin.position if fact.origin is not None else fact.position


def _timed(moments: Iterable[Moment]) -> Iterator[Moment]:
    before = 0
    for moment in sorted(moments, key=lambda one: one.at_ms):
        # What has no time stands first, and nothing is so and so long after it.
        yield replace(moment, after_ms=moment.at_ms - before if before else 0)
        before = moment.at_ms


# ------------------------------------------------------------------ what happened


def _moments(ordered: Sequence[tuple[int, Fact]], again: set[Position], standing: Standing) -> Iterator[Moment]:
    tried: dict[Position, Tries] = {}
    for at_ms, fact in ordered:
        text = sentence(fact)
        if fact.place.copies and fact.origin is not None:
            before = tried.get(fact.origin.position, Tries())
            text = f"{_end(before, fact)}{text}"
            tried[fact.origin.position] = fact.tries
        where = at(standing.layout, fact.position)
        what, repeated = _what(fact, standing), fact.position in again
        yield Moment(at_ms, what, fact.stage, where, text, again=repeated, fact=fact)


def _what(fact: Fact, standing: Standing) -> str:
    if fact.place.kind == "output":
        return standing.layout.short(fact.position.topic)
    if fact.place.kind == "failure":
        return "recoverable failure" if fact.says.get("recoverable") else "failure"
    return "replay" if fact.place.kind == "retry" and fact.replay and not _tried(fact) else fact.place.kind


def _tried(fact: Fact) -> bool:
    return fact.tries != Tries()


def _end(before: Tries, fact: Fact) -> str:
    """Say how the try before a copy ended, by what was counted meanwhile."""
    if fact.place.kind == "dead letter" or (fact.replay and not _tried(fact)):
        return ""
    if fact.tries.timeouts > before.timeouts:
        return "cut at its time limit; "
    if fact.tries.attempts > before.attempts:
        return "failed; "
    if fact.tries.deferrals > before.deferrals:
        return "deferred; "
    return "not due yet; "


def _done(notes: Iterable[Note]) -> Iterator[Moment]:
    """Say what people did about the job."""
    for note in notes:
        yield Moment(note.at_ms, note.what, "", "", note.text)


def _paused(facts: Sequence[Fact], standing: Standing) -> Iterator[Moment]:
    """Say which pauses the job's records had to wait for."""
    for one in held(facts, standing):
        entry, until = one.pause.entry, one.pause.until_ms
        told = f"until {when(until)}" if until else "and still"
        text = f"{describe_scope(entry)} since {when(entry.at_ms)} {told}{by(entry)}{because(entry)}"
        longest = f"; the job waited for it for up to {lasted(len(one.while_ms))}"
        yield Moment(one.while_ms.start, "paused", one.stage, "", text + longest)


def _repetitions(facts: Sequence[Fact]) -> set[Position]:
    """Find records that say once more what another says. The first of an id, in order of its partition, is the one."""
    first: dict[object, Fact] = {}
    again: set[Position] = set()
    for fact in sorted(facts, key=lambda one: one.position):
        kept = first.setdefault(_identity(fact), fact)
        if kept is not fact:
            again.add(fact.position)
    return again


def _identity(fact: Fact) -> object:
    if fact.place.copies:
        replay = tuple(sorted(fact.replay.items()))
        return fact.position.topic, fact.origin, fact.tries, fact.not_before_ms // 1000, replay
    outcome = (fact.says.get("outcome"), fact.says.get("attempts"), fact.says.get("finished_at_ms"))
    told = outcome if fact.place.kind == "delivery" else ()
    return fact.place.declared.noun, fact.event, fact.job.run, told


# ------------------------------------------------------------------ how it stands


def _letters(facts: Iterable[Fact], standing: Standing, notes: Sequence[Note]) -> Iterator[Letter]:
    states = {note.letter: note for note in sorted(notes, key=lambda one: one.at_ms) if note.letter}
    back = {fact.replay.get("letter"): fact for fact in facts if fact.place.kind == "retry" and fact.replay}
    for fact in facts:
        if fact.place.kind != "dead letter":
            continue
        note, brought = states.get(fact.letter), back.get(fact.letter) if fact.letter else None
        where = at(standing.layout, fact.position)
        since = f"dead at {fact.place.stage} since {when(fact.at_ms)}: "
        why = f" ({reason(fact.dead.get('code'), fact.dead.get('reason'))})"
        if note is not None:
            state = OPEN if note.what == TAKEN_BACK else note.what
            told = OPEN if note.what == TAKEN_BACK else _state(note)
            yield Letter(fact.letter, fact.place.stage, where, state, f"{since}{told}{why}")
        elif brought is not None:
            yield Letter(fact.letter, fact.place.stage, where, "replayed", f"{since}replayed{why}")
        else:
            yield Letter(fact.letter, fact.place.stage, where, OPEN, f"{since}{OPEN}{why}")


def _state(note: Note) -> str:
    to = f" to {note.details['to']}" if note.details.get("to") else ""
    who = f" by {note.operator}" if note.operator else ""
    return f"{note.what}{to}{who}" + (f": {note.reason}" if note.reason else "")


def _status(facts: Sequence[Fact], waiting: Sequence[Waiting], letters: Sequence[Letter], standing: Standing) -> str:
    if not facts:
        return "unknown"
    dead = any(letter.state in DEAD_STATES for letter in letters)
    if any(not dead or one.kind not in {"failure", "delivery"} for one in waiting):
        return "waiting"
    if dead:
        return "dead"
    told = [fact.says for fact in facts if "outcome" in fact.says]
    if told:
        return "failed" if told[-1].get("kind") == "job.failed" else str(told[-1]["outcome"])
    last = [fact for fact in facts if not fact.place.copies][-1:] or facts[-1:]
    if last[0].place.kind == "failure":
        return "failed"
    return "settled" if _all_sinks(last[0], standing) else "ended"


def _all_sinks(fact: Fact, standing: Standing) -> bool:
    stages = [standing.layout.stages[name] for name in fact.place.readers if name in standing.layout.stages]
    return bool(stages) and all(not stage.outputs for stage in stages)


def _about(facts: Sequence[Fact]) -> dict[str, Any]:
    """Say of the job what holds for all of it: the latest word on each."""
    if not facts:
        return {}
    about: dict[str, Any] = {}
    for fact in facts:
        job = fact.job
        told = {
            "tenant": job.tenant,
            "type": job.type,
            "lane": job.lane,
            "deadline": when(job.deadline_ms) if job.deadline_ms else "",
            "catalog": job.catalog,
            "trace": fact.trace,
        }
        about |= {name: text for name, text in told.items() if text}
    accepted = next((fact.at_ms for fact in facts if fact.place.kind in {"request", "document", "foreign"}), 0)
    if accepted := accepted or min(fact.job.accepted_at_ms for fact in facts):
        about["accepted"] = when(accepted)
    about["runs"] = sorted({fact.job.run for fact in facts})
    about["cost_usd"] = round(float(_cost(facts)), 9)
    return about


def _cost(facts: Iterable[Fact]) -> float:
    """Add up what was paid: each call once, or what the headers say, where the calls are not kept any more."""
    known = list(facts)
    paid = {(fact.event, fact.job.run): float(fact.says["cost_usd"]) for fact in known if _is_call(fact)}
    return max([sum(paid.values()), *(fact.job.cost_usd for fact in known)])


def _is_call(fact: Fact) -> bool:
    return "cost_usd" in fact.says and "request_id" in fact.says


def _remarks(facts: Sequence[Fact], again: set[Position], standing: Standing) -> Iterator[str]:
    for fact in facts:
        if fact.position in again:
            kind = fact.place.kind
            what = kind if kind in {"request", "document"} else f"record of {kind}"
            yield f"{at(standing.layout, fact.position)} says again what another {what} says: the first one counts"
    here = {fact.position for fact in facts}
    gone = Counter(_made_of(fact) for fact in facts if _made_of(fact) not in here)
    for position, number in gone.items():
        told = counted(number, "record")
        yield f"{at(standing.layout, position)}, of which {told} here came, is not kept any more, or was not read"

"""What a job waits for now: each record of it that nobody has settled, why, and behind how many. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.core import headers as h
from pipeline.core.control import ControlState
from pipeline.core.payloads import Control, Failure, Message, Result
from pipeline.core.record import Position
from pipeline.ops.explain_facts import Fact
from pipeline.ops.explain_layout import Layout
from pipeline.ops.explain_line import Group, InLine, place_of
from pipeline.ops.explain_pauses import Pause
from pipeline.ops.explain_words import at, cause, due_at_once
from pipeline.ops.words import counted, lasted, when

POSTED = (Result, Failure, Message)
"""What is posted to a webhook, and so waits for its endpoint."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the pipeline stands, beside a job's own records.

    `pauses` are those that were ever made, as far as is known. `model_of` names the model that answers an event type,
    `endpoint_of` the endpoint that its outcome usually goes to.
    """

    layout: Layout
    now: float
    groups: Mapping[str, Group] = field(default_factory=dict)
    control: ControlState = field(default_factory=ControlState)
    pauses: Sequence[Pause] = ()
    model_of: Callable[[str], str] = lambda _: ""
    endpoint_of: Callable[[str], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One record that a stage has still to settle. `until_ms` is when it is due, 0 for at once; `why` what holds it."""

    stage: str
    where: str
    kind: str
    before: int
    until_ms: int
    why: tuple[str, ...]

    @property
    def text(self) -> str:
        """Say it in one sentence."""
        return f"{self.stage} has still to settle {self.where}: {', '.join(self.why)}"


@dataclass(frozen=True, slots=True)
class Held:
    """A record that stood before `stage` while it was paused: from when to when that was so (epoch ms)."""

    stage: str
    pause: Pause
    while_ms: range


def waits(facts: Sequence[Fact], standing: Standing) -> list[Waiting]:
    """Find what is not settled, in the order of the facts."""
    ahead = _Successors(facts)
    return [_waiting(fact, stage, line, standing) for fact, stage, line in _unsettled(facts, ahead, standing)]


def held(facts: Sequence[Fact], standing: Standing) -> Iterator[Held]:
    """Find what had, or has, to wait for the end of a pause. A record that was handled already did not."""
    ahead = _Successors(facts)
    open_ = {(fact.position, stage) for fact, stage, _ in _unsettled(facts, ahead, standing)}
    for fact in facts:
        for stage in fact.place.readers:
            end = int(standing.now * 1000) if (fact.position, stage) in open_ else ahead.settled_ms(fact, stage)
            for pause in standing.pauses if end else ():
                span = pause.overlap(fact.at_ms, end or 0)
                if span and pause.holds(stage, fact.job, standing.model_of(fact.job.type)):
                    yield Held(stage, pause, span)


def _unsettled(facts: Sequence[Fact], ahead: _Successors, standing: Standing) -> Iterator[tuple[Fact, str, InLine]]:
    for fact in facts:
        for stage in fact.place.readers:
            line = place_of(fact.position, standing.groups.get(stage, Group()))
            if line is not None and stage in standing.groups and ahead.settled_ms(fact, stage) is None:
                yield fact, stage, line


class _Successors:
    """Finds what came of a record: it is written a moment before the record's offset is committed."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._children: dict[str, list[Fact]] = defaultdict(list)
        self._copies: dict[Position, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.parent and not fact.place.copies:
                self._children[fact.parent].append(fact)
            if fact.place.copies and fact.origin:
                self._copies[fact.origin.position].append(fact)

    def settled_ms(self, fact: Fact, stage: str) -> int | None:
        """Tell when `stage` wrote what came of a record; None where nothing did."""
        children = [one for one in self._children[fact.event] if _ends(one) and one.at_ms >= fact.at_ms]
        first = fact.origin.position if fact.origin else fact.position
        copies = [copy for copy in self._copies[first] if _later(copy, fact)]
        return min((one.at_ms for one in (*children, *copies) if one.stage == stage), default=None)


def _ends(fact: Fact) -> bool:
    # An attempt that is made again ends nothing, nor does the word that a record is dead: the dead letter does.
    return fact.says.get("outcome") != "failed" and not fact.says.get("recoverable")


def _later(copy: Fact, fact: Fact) -> bool:
    if copy.position == fact.position:
        return False
    return not fact.place.copies or _age(copy) > _age(fact)


def _age(copy: Fact) -> tuple[int, int, int, bool]:
    """Order the copies of one record as they were written, those of one millisecond by what is counted on them."""
    tries = copy.tries
    lives = h.count(copy.replay.get("count"))
    return lives, copy.at_ms, tries.attempts + tries.deferrals, copy.place.kind == "dead letter"


def _waiting(fact: Fact, stage: str, line: InLine, standing: Standing) -> Waiting:
    due = _due(fact)
    why = [*_holds(fact, stage, line, due, standing)] or ["it is next, or handled at this moment"]
    where = at(standing.layout, fact.position)
    return Waiting(stage, where, fact.place.kind, line.before, due if due > standing.now * 1000 else 0, tuple(why))


def _due(fact: Fact) -> int:
    if fact.place.tier is None or due_at_once(fact):
        return 0
    return max(fact.not_before_ms, fact.at_ms + int(fact.place.tier.delay * 1000))


def _holds(fact: Fact, stage: str, line: InLine, due: int, standing: Standing) -> Iterator[str]:
    group, now_ms = standing.groups[stage], int(standing.now * 1000)
    if due > now_ms:
        yield f"it waits until {when(due)}, for {lasted(due - now_ms)} more{cause(fact, ', because of ')}"
    if line.before:
        yield f"{counted(line.before, 'record')} before it"
    if line.handed_until * 1000 > now_ms:
        yield f"its former owner has until {when(line.handed_until * 1000)} to finish it"
    yield from _words(fact, stage, standing)
    if group.members == 0:
        yield f"no worker of {stage} runs"


def _words(fact: Fact, stage: str, standing: Standing) -> Iterator[str]:
    """Say what people have told the workers of it, and its deadline."""
    declared, job = standing.layout.stages.get(stage), fact.job
    cancelled = standing.control.cancels.get(job.id)
    if cancelled is not None and declared is not None and not declared.outcomes:
        yield f"it is cancelled{by(cancelled)}, which ends it as soon as it is looked at"
    elif job.late(standing.now) and declared is not None and declared.enforce_deadline:
        yield f"its deadline passed at {when(job.deadline_ms or 0)}, which ends it as soon as it is looked at"
    for pause in standing.control.pauses.values():
        if Pause(pause).holds(stage, job, standing.model_of(job.type)):
            yield f"paused{by(pause)} since {when(pause.at_ms)}{because(pause)}"
    if any(issubclass(source.payload, POSTED) for source in (declared.sources if declared else ())):
        name = str(fact.says.get("endpoint") or standing.endpoint_of(job.type))
        if (trouble := standing.control.endpoints.get(name)) is not None:
            yield f"endpoint {name} is {trouble.state}{by(trouble)} since {when(trouble.at_ms)}{because(trouble)}"


def by(entry: Control) -> str:
    """Say who said so."""
    return f" by {entry.operator}" if entry.operator else ""


def because(entry: Control) -> str:
    """Say why."""
    return f" ({entry.reason})" if entry.reason else ""

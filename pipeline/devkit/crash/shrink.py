"""From a seed that breaks something to the fewest faults that do: the plan is run again with some left out.

So are the variants of stages and the commands, that are parts of the plan as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.devkit.crash.built import Rehearsal
from pipeline.devkit.crash.faults import Fault, Plan
from pipeline.devkit.crash.ledger import Line
from pipeline.devkit.crash.run import Ran, run
from pipeline.devkit.crash.variants import Variant

MOST_RUNS = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken invariant with what it takes to break it. `history` is of the record concerned, and of all processes."""

    seed: int
    rule: str
    text: str
    faults: Sequence[Fault]
    history: Sequence[Line]
    runs: int
    variants: Sequence[Variant] = ()


_Part = Fault | Variant


def shrink(rehearsal: Rehearsal, ran: Ran, most: int = MOST_RUNS) -> Finding:
    """Leave out faults while the same invariant breaks, all at first, then ever fewer at once, within `most` runs."""
    smallest, runs, size = ran, 0, len(_parts(ran.plan))
    while size and runs < most:
        for parts in _without(_parts(smallest.plan), size, most - runs):
            runs += 1
            tried = run(rehearsal, _of(smallest.plan, parts))
            if _same(ran, tried):
                smallest, size = tried, min(size, len(parts))
                break
        else:
            size //= 2
    return finding(smallest, runs)


def _parts(plan: Plan) -> Sequence[_Part]:
    return (*plan.variants, *plan.faults)


def _of(plan: Plan, parts: Sequence[_Part]) -> Plan:
    faults = tuple(part for part in parts if isinstance(part, Fault))
    return replace(plan, faults=faults, variants=tuple(part for part in parts if isinstance(part, Variant)))


def _without(parts: Sequence[_Part], size: int, most: int) -> Iterator[tuple[_Part, ...]]:
    """Leave out `size` neighbours, wherever they stand; the last first, since what came late is rarely needed."""
    for start in list(range(0, len(parts), size))[::-1][:most]:
        yield (*parts[:start], *parts[start + size :])


def finding(ran: Ran, runs: int = 0) -> Finding:
    """Tell what a run broke. Raises ValueError where it broke nothing."""
    if ran.broken is None:
        raise ValueError(f"the run of seed {ran.plan.seed} broke nothing")
    told = [line for line in ran.history if not line.about or line.about in ran.broken.about]
    plan, broken = ran.plan, ran.broken
    return Finding(plan.seed, broken.rule, broken.text, plan.faults, told, runs, plan.variants)


def _same(one: Ran, other: Ran) -> bool:
    return one.broken is not None and other.broken is not None and one.broken.rule == other.broken.rule

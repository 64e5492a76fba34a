"""From a seed that breaks something to the fewest faults that do: the plan is run again with faults left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.devkit.crash.built import Rehearsal
from pipeline.devkit.crash.faults import Fault
from pipeline.devkit.crash.ledger import Line
from pipeline.devkit.crash.run import Ran, run

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


def shrink(rehearsal: Rehearsal, ran: Ran, most: int = MOST_RUNS) -> Finding:
    """Leave out faults while the same invariant breaks, all at first, then ever fewer at once, within `most` runs."""
    smallest, runs, size = ran, 0, len(ran.plan.faults)
    while size and runs < most:
        for faults in _without(smallest.plan.faults, size, most - runs):
            runs += 1
            tried = run(rehearsal, replace(smallest.plan, faults=faults))
            if _same(ran, tried):
                smallest, size = tried, min(size, len(faults))
                break
        else:
            size //= 2
    return finding(smallest, runs)


def _without(faults: Sequence[Fault], size: int, most: int) -> Iterator[tuple[Fault, ...]]:
    """Leave out `size` neighbours, wherever they stand; the last first, since what came late is rarely needed."""
    for start in list(range(0, len(faults), size))[::-1][:most]:
        yield (*faults[:start], *faults[start + size :])


def finding(ran: Ran, runs: int = 0) -> Finding:
    """Tell what a run broke. Raises ValueError where it broke nothing."""
    if ran.broken is None:
        raise ValueError(f"the run of seed {ran.plan.seed} broke nothing")
    told = [line for line in ran.history if not line.about or line.about in ran.broken.about]
    return Finding(ran.plan.seed, ran.broken.rule, ran.broken.text, ran.plan.faults, told, runs)


def _same(one: Ran, other: Ran) -> bool:
    return one.broken is not None and other.broken is not None and one.broken.rule == other.broken.rule

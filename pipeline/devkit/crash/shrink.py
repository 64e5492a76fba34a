"""From a seed that breaks something to the fewest faults that do: the plan is run again with faults left out."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Leave out one fault after the other while the same invariant breaks, within `most` runs."""
    smallest, runs, again = ran, 0, True
    while again:
        again = False
        for fault in reversed(smallest.plan.faults):
            if runs == most:
                break
            runs += 1
            faults = tuple(one for one in smallest.plan.faults if one is not fault)
            tried = run(rehearsal, replace(smallest.plan, faults=faults))
            if _same(ran, tried):
                smallest, again = tried, True
    return finding(smallest, runs)


def finding(ran: Ran, runs: int = 0) -> Finding:
    """Tell what a run broke. Raises ValueError where it broke nothing."""
    if ran.broken is None:
        raise ValueError(f"the run of seed {ran.plan.seed} broke nothing")
    told = [line for line in ran.history if not line.about or line.about in ran.broken.about]
    return Finding(ran.plan.seed, ran.broken.rule, ran.broken.text, ran.plan.faults, told, runs)


def _same(one: Ran, other: Ran) -> bool:
    return one.broken is not None and other.broken is not None and one.broken.rule == other.broken.rule

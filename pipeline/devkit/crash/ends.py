"""What each record has come to, and whether it came to that twice: where a stage says how often that may be.

A copy in a tier is no end. A dead letter and the failure event that tells of it are one end; an output, another failure
and a dead letter are different ones.
"""

from __future__ import annotations

from collections.abc import Set

from pipeline.core.job import child_id
from pipeline.core.stage import Stage
from pipeline.devkit.crash.chart import Map
from pipeline.devkit.crash.written import Written

ONCE = "each record has its end once"
IN_PLACE = "retries in place leave no copies"
EARLY = "tiers are never early"

Wrong = tuple[str, str]
"""The invariant that does not hold, and what happened."""


class Ends:
    """The ends of all records. `again`: of "at least once" each record that came to an end once more, and that end."""

    def __init__(self, chart: Map, cancelled: Set[str] = frozenset()) -> None:
        """Begin without any. `cancelled` are jobs, which end before their time."""
        self.cancelled = cancelled
        self.again: list[tuple[Written, Written]] = []
        self._chart = chart
        self._failures = chart.name("failures")
        self._known: dict[str, tuple[str, set[tuple[str, str]]]] = {}
        self._copies: dict[str, Written] = {}

    def book(self, first: Written, made: Written) -> Wrong | None:
        """Book `made`, which came of `first`; returns what is wrong with that."""
        reader = self._chart.read.get(first.position.topic)
        if reader is None:
            return None
        stage = reader.stage
        early = stage.delivery == "at most once" and first.job not in self.cancelled
        wrong = self._too_early(made) if early else None
        tier = self._chart.read.get(made.record.topic) if made.root == made.origin else None
        if tier is not None:
            self._copies[made.origin] = made
            if stage.retry.in_place:
                return IN_PLACE, f"{made.position} is a copy of {made.origin}, and {stage.name} retries in place"
            return wrong
        return self._end(stage, first, made) or wrong

    def fails(self, first: Written, made: Written) -> bool:
        """Whether `made` is the failure event that ends the job of the event it came of."""
        reader = self._chart.read.get(first.position.topic)
        return reader is not None and self._kind(reader.stage, made) == "failure"

    def _end(self, stage: Stage, first: Written, made: Written) -> Wrong | None:
        kind, written = self._kind(stage, made), (made.record.topic, made.id)
        known, ends = self._known.setdefault(made.origin, (kind, set()))
        again = written in ends or known != kind
        ends.add(written)
        if not again:
            return None
        if stage.delivery == "at least once":
            self.again.append((first, made))
            return None
        return ONCE, f"{made.position} ({kind}) is one more end of {made.origin} ({known}) in {stage.name}"

    def _kind(self, stage: Stage, made: Written) -> str:
        if made.record.topic in self._chart.dead:
            return "dead"
        if made.record.topic != self._failures:
            return "output"
        return "dead" if made.id == child_id(made.parent, f"{stage.name}.dead", 0, 0) else "failure"

    def _too_early(self, made: Written) -> Wrong | None:
        """Judge what comes of a copy, since its offset is committed before."""
        copy = self._copies.get(made.origin)
        read = copy and self._chart.read.get(copy.record.topic)
        if not copy or not read or read.tier is None or made.at >= copy.at + read.tier.delay - 0.001:
            return None
        return EARLY, f"{made.position} came of {copy.position} after {made.at - copy.at:.3f} s"

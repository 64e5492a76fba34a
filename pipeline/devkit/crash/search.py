"""Many seeds, one after the other: what `pipeline simulate` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.devkit.crash.built import Rehearsal
from pipeline.devkit.crash.faults import draw
from pipeline.devkit.crash.run import run
from pipeline.devkit.crash.shrink import Finding, shrink

MOST_FINDINGS = 5
"""After so many broken seeds the search ends: one mistake breaks many."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: how many seeds were played, with how many faults, records and model calls."""

    seeds: int
    faults: int
    records: int
    calls: int
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what a program wants to read: faults in words, and the history line by line."""
        told: dict[str, Any] = {name: getattr(self, name) for name in ("seeds", "faults", "records", "calls")}
        return told | {"findings": [_finding(one) for one in self.findings]}


def search(rehearsal: Rehearsal, seeds: Iterable[int], played: Callable[[int], None] = lambda _: None) -> Found:
    """Play seeds until all are played or several are broken; each broken one is made as small as it gets.

    `played` is told how many seeds are done.
    """
    count = faults = records = calls = 0
    findings: list[Finding] = []
    for seed in seeds:
        ran = run(rehearsal, draw(seed, rehearsal.stages))
        count, faults = count + 1, faults + len(ran.plan.faults)
        records, calls = records + ran.records, calls + len(ran.calls)
        if ran.broken is not None:
            findings.append(shrink(rehearsal, ran))
        played(count)
        if len(findings) == MOST_FINDINGS:
            break
    return Found(count, faults, records, calls, tuple(findings))


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "invariant": one.rule,
        "text": one.text,
        "variants": [asdict(variant) for variant in one.variants],
        "faults": [{**asdict(fault), "text": str(fault).strip()} for fault in one.faults],
        "history": [asdict(line) for line in one.history],
    }

"""Many seeds, each a run of its own, in as many processes as wanted: what `pipeline simulate` does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

from pipeline.devkit.crash.built import Rehearsal
from pipeline.devkit.crash.faults import draw
from pipeline.devkit.crash.run import run
from pipeline.devkit.crash.shrink import Finding, shrink
from pipeline.telemetry import logs

MOST_FINDINGS = 5
"""After so many broken seeds the search ends: one mistake breaks many."""

BLOCK = 10
"""So many seeds a process is given at once: a few seconds of work."""


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


def search(
    rehearsal: Rehearsal,
    seeds: Sequence[int],
    played: Callable[[int], None] = lambda _: None,
    processes: int = 1,
) -> Found:
    """Play seeds until all are played or several are broken; each broken one is made as small as it gets.

    `played` is told how many seeds are done. The result is the same for any number of `processes`; with more than one,
    `rehearsal` is pickled.
    """
    count = faults = records = calls = 0
    findings: list[Finding] = []
    with _runs(partial(_play, rehearsal), seeds, min(processes, len(seeds) // BLOCK)) as runs:
        for one in runs:
            count, faults = count + one.seeds, faults + one.faults
            records, calls = records + one.records, calls + one.calls
            findings.extend(one.findings)
            played(count)
            if len(findings) == MOST_FINDINGS:
                break
    return Found(count, faults, records, calls, tuple(findings))


def _play(rehearsal: Rehearsal, seed: int) -> Found:
    ran = run(rehearsal, draw(seed, rehearsal.stages))
    findings = () if ran.broken is None else (shrink(rehearsal, ran),)
    return Found(1, len(ran.plan.faults), ran.records, len(ran.calls), findings)


@contextmanager
def _runs(play: Callable[[int], Found], seeds: Sequence[int], processes: int) -> Iterator[Iterator[Found]]:
    if processes < 2:  # a second process costs a second to start
        yield map(play, seeds)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin)
    try:
        yield pool.map(play, seeds, chunksize=BLOCK)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a process that plays: who presses Ctrl-C means the one that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(level="CRITICAL")


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "invariant": one.rule,
        "text": one.text,
        "variants": [asdict(variant) for variant in one.variants],
        "faults": [{**asdict(fault), "text": str(fault).strip()} for fault in one.faults],
        "history": [asdict(line) for line in one.history],
    }

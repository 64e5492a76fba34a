"""`pipeline simulate`: seeds played on the broker in memory, and what of the promises broke."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from rich.markup import escape

from pipeline.cli.console import bars
from pipeline.cli.session import ERR, FAILED, OUT
from pipeline.devkit.crash.search import Found, search
from pipeline.devkit.crash.shrink import Finding
from pipeline.rehearsal import Rehearsal

LAST_LINES = 80


def simulate(seeds: Sequence[int], *, as_json: bool, processes: int | None = None) -> int:
    """Play `seeds` in so many processes, as many as there are cores unless said; returns the exit code."""
    with bars(ERR) as progress:
        found = search(
            Rehearsal(),
            seeds,
            lambda count: progress("seeds", count, len(seeds)),
            processes or os.cpu_count() or 1,
        )
    if as_json:
        OUT.print_json(json.dumps(found.as_json()))
    else:
        for one in found.findings:
            _tell(one)
        OUT.print(_sum(found), highlight=False)
    return FAILED if found.findings else 0


def _tell(one: Finding) -> None:
    OUT.print(f"[bold red]seed {one.seed}:[/] {escape(one.rule)}: {escape(one.text)}", highlight=False, soft_wrap=True)
    OUT.print(f"It takes these {len(one.faults)} faults (found in {one.runs} more runs):", highlight=False)
    for part in (*one.variants, *one.faults):
        OUT.print(f"  {escape(str(part))}", highlight=False, soft_wrap=True)
    OUT.print("What happened to the record concerned, and to the processes:", highlight=False)
    for line in one.history[-LAST_LINES:]:
        OUT.print(f"  {line.at:9.3f} s  {escape(f'{line.who:20} {line.text}')}", highlight=False, soft_wrap=True)
    OUT.print(f"Again: pipeline simulate --seed {one.seed}\n", highlight=False)


def _sum(found: Found) -> str:
    return (
        f"{found.seeds} seeds played with {found.faults} faults, {found.records} records and {found.calls} calls of "
        f"the model: {len(found.findings) or 'no'} broken"
    )

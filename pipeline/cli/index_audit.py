"""`pipeline index audit`: whether the index holds what the source holds, and mending it where it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import auditing
from pipeline.cli.console import bars
from pipeline.cli.session import ERR, FAILED, OUT, configure, run, say
from pipeline.core.errors import Defer, Retry
from pipeline.ops.index_audit import Difference, Findings, Options
from pipeline.ops.index_differences import KINDS
from pipeline.settings import Configured


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a person asked for."""

    only: Sequence[str]
    options: Options
    as_json: bool


def register(index_app: typer.Typer) -> None:
    """Add the verb."""
    index_app.command("audit", epilog="Example: pipeline index audit --table documents --sample 1000")(audit)


def audit(  # noqa: PLR0913, PLR0917  # the options of a verb
    only: Annotated[
        list[str] | None, typer.Option("--table", help="A topic or source; several may be given. All unless said.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Compare so many rows and documents of each, drawn at random.")
    ] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds after which a difference is looked at again.")] = 10.0,
    fix: Annotated[bool, typer.Option("--fix", help="Mend the index where it differs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before mending.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Show so many differences of each kind and source.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    every: Annotated[
        float | None, typer.Option(min=1, help="Audit again after so many seconds, and serve /metrics.")
    ] = None,
) -> None:
    """Compare the rows of the mapped tables with the index, and name what is missing, stale, orphaned or torn.

    Ends with 0 where nothing differs, or all was mended, else with 1.
    """
    configured = configure(level="WARNING")
    if fix and not yes:
        typer.confirm("Mend the index where it differs from SOURCE_DATABASE_URL?", abort=True, err=True)
    asked = _Asked(only or (), Options(sample, settle, fix, show), as_json)
    with bars(ERR) as progress:
        work = _once(configured, asked, progress) if every is None else _always(configured, asked, progress, every)
        findings = run(work)
    raise typer.Exit(FAILED if any(one.open for one in findings) else 0)


Progress = Callable[[str, int, int], None]


async def _once(configured: Configured, asked: _Asked, progress: Progress) -> Sequence[Findings]:
    async with auditing.open_auditor(configured, asked.only) as auditor:
        findings = await auditor.run(asked.options, progress)
    _tell(findings, as_json=asked.as_json)
    return findings


async def _always(configured: Configured, asked: _Asked, progress: Progress, seconds: float) -> Sequence[Findings]:
    """Audit until it is stopped. What is away is asked again next time."""
    async with (
        auditing.open_auditor(configured, asked.only) as auditor,
        auditing.open_watch(configured) as (watch, probes),
    ):
        say(f"probes at {probes}")
        while True:
            try:
                findings = await auditor.run(asked.options, progress)
            except (Defer, Retry) as error:
                watch.failed(error.reason)
                say(f"no audit: {error.reason}")
            else:
                watch.done(findings)
                _tell(findings, as_json=asked.as_json)
            await asyncio.sleep(seconds)


def _tell(findings: Sequence[Findings], *, as_json: bool) -> None:
    if as_json:
        OUT.print(json.dumps([_plain(one) for one in findings]), soft_wrap=True, highlight=False, markup=False)
        return
    table = Table("source", "rows", "documents", *KINDS, "mended")
    for one in findings:
        rows = str(one.rows) if one.mapped else "-"
        kinds = (str(one.kinds[kind]) for kind in KINDS)
        table.add_row(escape(one.source), rows, str(one.documents), *kinds, str(one.fixed))
    OUT.print(table)
    for one in findings:
        for sentence in _remarks(one):
            OUT.print(escape(sentence), highlight=False, soft_wrap=True)
        for difference in one.shown:
            OUT.print(escape(_line(difference)), highlight=False, soft_wrap=True)
    total = sum(one.open for one in findings)
    OUT.print("no differences" if not total else f"{total} differences", highlight=False)


def _remarks(one: Findings) -> list[str]:
    told = (
        (one.refused, "rows are refused by the index, and so not in it: their changes are dead letters"),
        (one.unknown, "rows could not be compared: it is not known what their changes tell"),
        (one.moving, "documents changed whenever they were looked at"),
    )
    lines = [f"{one.source}: {number} {what}" for number, what in told if number]
    if one.mapped:
        return lines
    return [f"{one.source}: no table is mapped to it, so its points are only held against each other", *lines]


def _line(one: Difference) -> str:
    done = "" if one.fixed is None else " (fixed)" if one.fixed else f" (not fixed: {one.note})"
    return f"{one.kind} {one.source}/{one.document}: {one.why}{done}"


def _plain(one: Findings) -> Mapping[str, Any]:
    counted = {kind: one.kinds[kind] for kind in KINDS}
    names = ("source", "mapped", "rows", "documents", "refused", "unknown", "moving", "fixed", "open")
    # `refused` is the kind here: rows that are refused and not in the index are no difference.
    told = {("refused_rows" if name == "refused" else name): getattr(one, name) for name in names}
    return {**told, "differences": counted, "shown": [asdict(difference) for difference in one.shown]}

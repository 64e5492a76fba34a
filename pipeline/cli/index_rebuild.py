"""`pipeline index rebuild`: the index made anew while everything goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import rebuilding
from pipeline.cli.console import bars
from pipeline.cli.session import ERR, FAILED, MISUSED, OUT, complaints, configure, run, say
from pipeline.ops.index_rebuild import RebuildError, Report
from pipeline.settings import Configured


def register(app: typer.Typer) -> None:
    """Add the verb to `pipeline index`."""
    app.command("rebuild", epilog="Example: EMBEDDING_MODEL=other-model pipeline index rebuild")(rebuild)


def rebuild(
    drop: Annotated[bool, typer.Option("--drop", help="Delete the collections that are no longer needed.")] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="End a rebuild that runs or was stopped, and delete what it made.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the index anew by this configuration and switch to it; searches and changes go on all the while.

    Exit code 1 where the new collection lacks what the old one has: then nothing was switched. Run again after a crash
    it goes on where it was. The old collection stays until --drop.
    """
    if drop and abort:
        ERR.print("pipeline: --drop and --abort are two things: give one of them")
        raise typer.Exit(MISUSED)
    configured = configure(level="WARNING")
    if abort:
        _tell(run(_abort(configured)), "aborted", as_json)
    elif drop:
        _drop(configured, yes=yes, as_json=as_json)
    else:
        _show(run(_rebuild(configured)), as_json)


async def _rebuild(configured: Configured) -> Report:
    with bars(ERR) as progress:
        async with rebuilding.open_rebuild(configured, say, progress) as opened:
            old, new = opened.target.names
            say(f"filling {new} from {old} and from the topics")
            try:
                return await opened.run()
            except RebuildError as error:
                ERR.print(f"[bold red]pipeline:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
                raise typer.Exit(FAILED) from None


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        OUT.print_json(json.dumps(asdict(report)))
        return
    documents = sum(report.documents.values())
    OUT.print(
        f"{report.new} is live: {documents} documents of {len(report.documents)} sources; {report.copied} copied, "
        f"{report.records} records read, {report.tokens} tokens embedded, in {report.seconds:.1f} s, of which writers "
        f"waited for {report.closed_seconds:.1f} s",
        highlight=False,
    )
    for reason, number in report.skipped.items():
        OUT.print(escape(f"skipped, {number} times: {reason}"), highlight=False, soft_wrap=True)
    if report.unknown:
        OUT.print(f"{report.unknown} changes tell no body, and nobody knows it; they are the stage's to settle")
    OUT.print(
        f"{report.old} is kept; once every `retrieve` was started with the same EMBEDDING_MODEL, delete it with "
        "`pipeline index rebuild --drop`",
        highlight=False,
    )


async def _abort(configured: Configured) -> Sequence[str]:
    async with rebuilding.open_collections(configured) as collections:
        gone: Sequence[str] = await collections.abort()
        return gone


def _drop(configured: Configured, *, yes: bool, as_json: bool) -> None:
    names = run(_droppable(configured))
    if names and not yes:
        with complaints():
            typer.confirm(
                f"Delete {', '.join(names)}? A search that still reads one of them ends", abort=True, err=True
            )
    _tell(run(_dropped(configured, names)), "deleted", as_json)


async def _droppable(configured: Configured) -> Sequence[str]:
    async with rebuilding.open_collections(configured) as collections:
        names: Sequence[str] = await collections.droppable()
        return names


async def _dropped(configured: Configured, names: Sequence[str]) -> Sequence[str]:
    async with rebuilding.open_collections(configured) as collections:
        for name in names:
            await collections.drop(name)
        return names


def _tell(names: Sequence[str], verb: str, as_json: bool) -> None:
    if as_json:
        OUT.print_json(json.dumps({verb: list(names)}))
    else:
        OUT.print(f"{verb}: {', '.join(names) or 'nothing'}", highlight=False)

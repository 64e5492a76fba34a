"""`pipeline tail`: what is written to the topics, as it is written."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

from pipeline import explaining
from pipeline.cli.console import print_json
from pipeline.cli.session import OUT, complaints, configure, run, say
from pipeline.explaining import Followed
from pipeline.ops.tail import Line, Wanted, seconds
from pipeline.settings import Configured
from pipeline.wiring import STAGES


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: pipeline tail infer failures --tenant acme")(tail)


def tail(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC|STAGE]...",
            help="Topics, or stages for what they write; all unless given.",
            autocompletion=lambda: list(STAGES),
        ),
    ] = None,
    jobs: Annotated[list[str] | None, typer.Option("--job", help="Only of this job; the id may be cut short.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only of this event type.")] = None,
    tenants: Annotated[list[str] | None, typer.Option("--tenant", help="Only of this tenant.")] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Only what this stage has written.", autocompletion=lambda: list(STAGES)),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with what is kept.")] = False,
    lasting: Annotated[str | None, typer.Option("--for", help="End after so long, such as 30s or 5m.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each.")] = False,
) -> None:
    """Follow what is written, a line for each record, until Ctrl-C. Nothing is committed, and nothing is disturbed."""
    configured = configure(level="WARNING")
    with complaints():
        limit = seconds(lasting, "--for") if lasting is not None else None
    wanted = Wanted(jobs or (), types or (), tenants or (), stages or ())
    try:
        run(_follow(configured, Followed(names or (), wanted, from_start), limit, as_json=as_json))
    except BrokenPipeError:
        # Who reads us, `head` perhaps, has read enough; Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _follow(configured: Configured, followed: Followed, limit: float | None, *, as_json: bool) -> None:
    async with explaining.open_lines(configured, followed, say) as lines:
        try:
            async with asyncio.timeout(limit):
                async for line in lines:
                    _show(line, as_json=as_json)
        except TimeoutError:
            return


def _show(line: Line, *, as_json: bool) -> None:
    if as_json:
        print_json(line.plain)
    elif OUT.is_terminal:
        OUT.print(Text(line.text, "red" if line.bad else ""), soft_wrap=True, highlight=False)
    else:
        print(line.text, flush=True)

"""`pipeline dlq watch`: dead letters as they come, and how many in each minute."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

import typer

from pipeline.cli.console import print_json, print_text, when
from pipeline.cli.dlq_desk import opened, plain
from pipeline.cli.dlq_options import Asked, asking
from pipeline.cli.session import complaints, configure, run, say
from pipeline.core.letter_filter import span
from pipeline.ops.letter_watch import Minutes, watch
from pipeline.ops.letters import Found, Letters
from pipeline.settings import Configured

_REASON_CHARACTERS = 120


def register(dlq_app: typer.Typer) -> None:
    """Add the verb."""
    dlq_app.command("watch", epilog="Example: pipeline dlq watch --stage infer --for 10m")(watch_verb)


@asking
def watch_verb(
    asked: Asked,
    time: Annotated[str | None, typer.Option("--for", help="End after so long: 30s, 10m. Else Ctrl-C ends it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Follow new dead letters, a line each, with the counts of each minute; --limit ends it after so many."""
    with complaints():
        seconds = None if time is None else span(time, "--for")
    run(_watch(configure(level="WARNING"), asked, seconds, as_json))


async def _watch(configured: Configured, asked: Asked, seconds: float | None, as_json: bool) -> None:
    async with opened(configured, asked) as letters:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await _follow(letters, asked, as_json)
        except TimeoutError:
            if not limit.expired():
                raise


async def _follow(letters: Letters, asked: Asked, as_json: bool) -> None:
    ports, left = letters.ports, asked.limit
    minutes: Minutes | None = None
    async with aclosing(watch(letters, asked.filter)) as batches:
        async for found in batches:
            now = int(ports.clock() * 1000)
            if minutes is None:
                minutes = Minutes(now)
                say("watching for dead letters")
            found = found[:left]  # noqa: PLW2901  # what is over the limit is none of it
            for one in found:
                _tell(one, await ports.versions.of(one.record.value), as_json)
            minutes.add(found)
            if (counted := minutes.over(now)) is not None and not as_json:
                _minute(list(counted.items()))
            if left is not None and not (left := left - len(found)):
                return


def _tell(one: Found, version: str, as_json: bool) -> None:
    if as_json:
        print_json(plain(one.head, one.state, version))
        return
    head = one.head
    whose = " ".join(part for part in (head.type, head.tenant, head.job) if part)
    what = f"{head.stage}  {head.code}  {whose}  {head.id}  {head.reason[:_REASON_CHARACTERS]}"
    print_text(f"{when(head.failed_at_ms)[-8:]}  {what}")


def _minute(counted: Sequence[tuple[str, int]]) -> None:
    total = sum(count for _, count in counted)
    by = ": " + ", ".join(f"{stage or '-'} {count}" for stage, count in counted) if counted else ""
    print_text(f"-- {total} in a minute{by}")

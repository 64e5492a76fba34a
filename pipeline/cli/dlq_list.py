"""`pipeline dlq list`: how many dead letters there are, of which kinds, and the newest of them."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.console import id_column, print_json, when
from pipeline.cli.dlq_desk import opened, plain
from pipeline.cli.dlq_options import Asked, asking
from pipeline.cli.session import OUT, configure, run
from pipeline.lettering import listed
from pipeline.ops.letter_counts import DIMENSIONS
from pipeline.ops.letters import DECODED, Listing
from pipeline.ops.words import counted
from pipeline.settings import Configured

NEWEST = 20
SHOWN_NAMES = 10
_REASON_CHARACTERS = 80
WIDE_CHARACTERS = 130
"""From so many on a terminal has room for `_MORE`, too; `show` tells it in any case."""
_MORE = ("failed at (UTC)", "type", "tenant", "replays", "job")


def register(dlq_app: typer.Typer) -> None:
    """Add the verb."""
    dlq_app.command("list", epilog="Example: pipeline dlq list --stage infer --since 2h --reason 'model_*'")(list_verb)


@asking
def list_verb(asked: Asked, as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False) -> None:
    """Count dead letters by stage, reason, fingerprint, type, tenant, version, age and state; then show the newest.

    Without --limit the newest 20 are shown. With --json the first line has the counts, and each further line a letter.
    """
    listing = run(_listing(configure(level="WARNING"), asked))
    if as_json:
        _print_lines(listing)
    else:
        _print_tables(listing)


async def _listing(configured: Configured, asked: Asked) -> Listing:
    async with opened(configured, asked, states=False) as letters:
        newest = NEWEST if asked.limit is None else asked.limit
        return await listed(letters, configured, asked.topics, asked.filter, newest, os.cpu_count() or 1)


def _print_lines(listing: Listing) -> None:
    counts = listing.counts
    told = {name: counts.by(name) for name in DIMENSIONS}
    about = {
        grave: dict(zip(("stage", "reason", "text"), example, strict=True))
        for grave, example in counts.examples.items()
    }
    times = {"oldest_ms": counts.oldest_ms, "newest_ms": counts.newest_ms}
    print_json({"letters": counts.total, **times, "by": told, "fingerprints": about})
    for head, state, version in listing.newest:
        print_json(plain(head, state, version))


def _print_tables(listing: Listing) -> None:
    counts = listing.counts
    if not counts.total:
        OUT.print("no dead letters", highlight=False)
        return
    OUT.print(_counted(listing))
    OUT.print(_kinds(listing))
    if listing.newest:
        OUT.print(_letters(listing))
    if listing.opaque >= DECODED:
        OUT.print(
            f"only {DECODED} letters from outsiders were decoded to count them by type and tenant; a filter by either"
            " decodes all",
            highlight=False,
        )
    times = f"from {when(counts.oldest_ms)} to {when(counts.newest_ms)} UTC"
    OUT.print(f"{counted(counts.total, 'dead letter')}, {times}", highlight=False)


def _counted(listing: Listing) -> Table:
    table = Table("by", "letters", "which")
    for dimension in DIMENSIONS:
        names = listing.counts.by(dimension)
        if dimension == "fingerprint" or (dimension == "family" and names.keys() <= {"pipeline"}):
            continue
        for number, (name, count) in enumerate(list(names.items())[:SHOWN_NAMES]):
            table.add_row("" if number else dimension, str(count), escape(name))
        if len(names) > SHOWN_NAMES:
            table.add_row("", str(sum(list(names.values())[SHOWN_NAMES:])), f"({len(names) - SHOWN_NAMES} more)")
    return table


def _kinds(listing: Listing) -> Table:
    table = Table("fingerprint", "letters", "stage", "reason", "an example")
    graves = listing.counts.by("fingerprint")
    for grave, count in list(graves.items())[:SHOWN_NAMES]:
        stage, code, reason = listing.counts.examples.get(grave, ("", "", ""))
        table.add_row(escape(grave), str(count), escape(stage), escape(code), escape(reason[:_REASON_CHARACTERS]))
    if len(graves) > SHOWN_NAMES:
        rest = sum(list(graves.values())[SHOWN_NAMES:])
        table.add_row(f"({len(graves) - SHOWN_NAMES} more)", str(rest), "", "", "")
    return table


def _letters(listing: Listing) -> Table:
    wide = OUT.width >= WIDE_CHARACTERS
    table = Table(id_column("letter"), "state", "stage", "reason", *(_MORE if wide else ()))
    for head, state, _ in listing.newest:
        told = state.state if not state.assignee else f"{state.state}: {state.assignee}"
        replays = str(max(head.replays, state.replays) or "")
        more = (when(head.failed_at_ms), escape(head.type), escape(head.tenant), replays, escape(head.job))
        table.add_row(head.id, escape(told), escape(head.stage), escape(head.code), *(more if wide else ()))
    return table

"""`pipeline index`: what the vector index holds, and what a search in it finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import rebuilding, wiring
from pipeline.cli.session import ERR, MISUSED, OUT, configure, run, say
from pipeline.core.index_ports import Search
from pipeline.core.payloads import Passage
from pipeline.settings import Configured

MOST_SHOWN = 300
"""So many characters of a passage are shown; `--json` prints all."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

index_app = typer.Typer(help="The vector index.", no_args_is_help=True)


@index_app.command("status", epilog="Example: pipeline index status")
def status(as_json: AsJson = False) -> None:
    """Show what the index holds of each source, how new that is, and how many records it has still to read."""
    told = run(_status(configure(level="WARNING")))
    if as_json:
        OUT.print_json(json.dumps(told))
        return
    table = Table("source", "documents", "removed", "newest version", "committed")
    for name, one in told["sources"].items():
        table.add_row(escape(name), *(str(one[part]) for part in ("documents", "removed", "version")), _time(one))
    OUT.print(table)
    lag = "not known: no broker is configured" if told["lag"] is None else f"{told['lag']} records"
    OUT.print(
        f"{told['chunks']} chunks, {told['marks']} marks, {told['points']} points; to be read: {lag}", highlight=False
    )
    for one in told["collections"]:
        made = f"{one['model']}, {one['dimension']} dimensions" if one["model"] else "words alone"
        OUT.print(f"{one['state']}: {escape(one['name'])} ({escape(made)}), {one['points']} points", highlight=False)
    if told["closing"]:
        OUT.print(
            "a rebuild is about to switch: writers wait for it; if none runs, see `pipeline index rebuild --help`"
        )


@index_app.command("search", epilog="Example: pipeline index search --tenant acme 'When does the shop open?'")
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    tenant: Annotated[str, typer.Option(help="Whose documents; nobody finds another's.")] = "default",
    limit: Annotated[int, typer.Option(min=1, max=50, help="How many passages.")] = 5,
    only: Annotated[list[str] | None, typer.Option("--filter", help="NAME=VALUE; all given must hold.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search as `retrieve` does, and show the passages with their scores and versions."""
    filters = dict(_filter(one) for one in only or ())
    found = run(_search(configure(level="WARNING"), Search(tenant, text, limit, filters)))
    if as_json:
        OUT.print_json(json.dumps([one.model_dump() for one in found]))
        return
    for one in found:
        OUT.print(
            f"[bold]{one.score:.4g}[/] {escape(f'{one.source}/{one.document}#{one.chunk}')} version {one.version}"
            f" [bold]{escape(one.title)}[/]",
            highlight=False,
        )
        OUT.print(escape(one.text[:MOST_SHOWN]), highlight=False, soft_wrap=True)
    if not found:
        say(f"nothing found among the documents of {tenant}")


async def _status(configured: Configured) -> Mapping[str, Any]:
    async with rebuilding.open_collections(configured) as collections:
        index = await collections.live()
        built = [asdict(one) for one in await collections.listed()]
        told = asdict(await index.status()) | {"alias": collections.aliases.alias, "collections": built}
        told["closing"] = bool(collections.aliases.seen.closing)
    if not configured.environment.get("KAFKA_BOOTSTRAP_SERVERS"):
        return {**told, "lag": None}
    async with wiring.open_desk(configured, say) as desk:
        return {**told, "lag": await desk.lag("index")}


async def _search(configured: Configured, wanted: Search) -> Sequence[Passage]:
    async with wiring.open_index(configured) as index:
        found: Sequence[Passage] = await index.search(wanted)
        return found


def _filter(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        ERR.print(f"pipeline: --filter {escape(given)} is not NAME=VALUE, as in --filter source=handbook")
        raise typer.Exit(MISUSED)
    return name, value


def _time(one: Mapping[str, Any]) -> str:
    at = one["committed_at_ms"]
    return "" if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat(" ", "seconds")

"""`pipeline deliveries`: every attempt at every webhook, and sending webhooks once more."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import delivering, wiring
from pipeline.cli.console import bars, id_column, print_json, print_text, when
from pipeline.cli.endpoint_name import Where
from pipeline.cli.operator import Operator, Reason, operator_of
from pipeline.cli.session import ERR, FAILED, MISUSED, OUT, complaints, configure, run, say
from pipeline.core.endpoints import state_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import moment
from pipeline.delivering import DeliveryDesk
from pipeline.ops import endpoints as known
from pipeline.ops.deliveries import OUTCOMES, Entry, Wanted, ended_as
from pipeline.ops.newest import Newest
from pipeline.ops.resend import Order, Refused
from pipeline.settings import Configured

Since = Annotated[str | None, typer.Option("--since", help="From then on: a time, or an age such as 2h or 3d.")]
Until = Annotated[str | None, typer.Option("--until", help="Before then: a time, or an age.")]
Job = Annotated[str | None, typer.Option("--job", help="Only of this job.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Outcome = Annotated[
    str | None,
    typer.Option("--outcome", help=f"Only these: {', '.join(OUTCOMES)}.", autocompletion=lambda: list(OUTCOMES)),
]
Id = Annotated[str | None, typer.Option("--webhook-id", help="Only of this webhook.")]

SHOWN = 20
"""How many webhooks that cannot be sent again are named to a person."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verbs = typer.Typer(help="The log of webhooks: every attempt, and sending again.", no_args_is_help=True)
    verbs.command("list", epilog="Example: pipeline deliveries list --endpoint crm --outcome failed --since 2h")(
        list_verb
    )
    verbs.command("show", epilog="Example: pipeline deliveries show 9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51")(show)
    verbs.command("resend", epilog="Example: pipeline deliveries resend --endpoint crm --since 2d --dry-run")(resend)
    app.add_typer(verbs, name="deliveries")


# ------------------------------------------------------------------ list


def list_verb(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    endpoint: Where = None,
    outcome: Outcome = None,
    job: Job = None,
    webhook_id: Id = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, help="Show the newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List attempts at webhooks, the newest last. Counts all that are meant."""
    configured = configure(level="WARNING")
    with complaints():
        wanted = Wanted(endpoint, _outcome(outcome), job, webhook_id, _moment(since, "since"), _moment(until, "until"))
    entries, counts = run(_newest(configured, wanted, limit))
    if as_json:
        for entry in entries:
            print_json(entry.plain)
        return
    OUT.print(_table(entries))
    print_text(_counted(counts))


async def _newest(configured: Configured, wanted: Wanted, limit: int) -> tuple[list[Entry], Counter[str]]:
    newest, counts = Newest[Entry](limit), Counter[str]()
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            async for entry in desk.log.entries(wanted):
                newest.add(entry.at_ms, entry.position, entry)
                counts[entry.delivery.outcome] += 1
    return newest.taken()[::-1], counts


def _table(entries: Sequence[Entry]) -> Table:
    numbers = ("status", "ms", "bytes", "attempt")
    table = Table("at", "endpoint", "outcome", *numbers, id_column("webhook id"), "reason")
    for entry in entries:
        one = entry.delivery
        status = "" if one.status is None else str(one.status)
        figures = (status, str(one.duration_ms), str(one.request_bytes), str(one.attempts))
        cells = (when(entry.at_ms), one.endpoint or "", one.outcome, *figures, one.webhook_id, one.reason)
        table.add_row(*map(escape, cells))
    return table


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name]) or "nothing found"


# ------------------------------------------------------------------ show


def show(
    webhook_id: Annotated[str, typer.Argument(help="The webhook's id, as its receiver and `deliveries list` have it.")],
    as_json: Json = False,
) -> None:
    """Show all attempts at one webhook, in their order. Ends with 1 where there is none."""
    configured = configure(level="WARNING")
    entries = run(_all(configured, Wanted(webhook_id=webhook_id)))
    if as_json:
        for entry in entries:
            print_json(entry.plain)
    else:
        for line in timeline(entries):
            print_text(line)
    if not entries:
        say(f"no delivery of {webhook_id} is kept: the log goes back as far as its topic")
        raise typer.Exit(FAILED)


async def _all(configured: Configured, wanted: Wanted) -> list[Entry]:
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            return [entry async for entry in desk.log.entries(wanted)]


def timeline(entries: Sequence[Entry]) -> list[str]:
    """Tell the attempts at one webhook, with the time between them."""
    if not entries:
        return []
    first = entries[0]
    lines = [f"{first.delivery.kind} of job {first.job} to {first.delivery.endpoint or 'no endpoint'}"]
    before = first.at_ms
    for entry in entries:
        one, later = entry.delivery, (entry.at_ms - before) / 1000
        before = entry.at_ms
        status = "" if one.status is None else f" {one.status}"
        took = f" in {one.duration_ms} ms" if one.request_bytes else ""
        reason = f": {one.reason}" if one.reason else ""
        lines.append(
            f"{when(entry.at_ms)}  +{later:,.1f} s  attempt {one.attempts}  {one.outcome}{status}{took}{reason}"
        )
    return lines


# ------------------------------------------------------------------ resend


def resend(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    webhook_id: Annotated[str | None, typer.Argument(help="One webhook; else give --endpoint.")] = None,
    endpoint: Where = None,
    outcome: Annotated[str, typer.Option("--outcome", help="Those whose last word is this.")] = "undeliverable",
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Reason = "",
    operator: Operator = None,
    as_json: Json = False,
) -> None:
    """Send webhooks once more, each under the id that it had, so that a receiver which has seen it drops it.

    Ends with 1 where nothing is to be sent, or something cannot be.
    """
    if (webhook_id is None) == (endpoint is None):
        ERR.print("pipeline: give the id of one webhook, or --endpoint for all that it lacks")
        raise typer.Exit(MISUSED)
    configured = configure(level="WARNING")
    with complaints():
        wanted = Wanted(endpoint=endpoint, webhook_id=webhook_id, since_ms=_moment(since, "since"))
        told = _outcome(outcome) or outcome
    order = Order(uuid4().hex, operator_of(operator), reason)
    raise typer.Exit(run(_resend(configured, wanted, told, order, Ways(dry_run, yes, as_json))))


@dataclass(frozen=True, slots=True)
class Ways:
    """How a resending is to go about."""

    dry_run: bool
    yes: bool
    as_json: bool


async def _resend(configured: Configured, wanted: Wanted, outcome: str, order: Order, ways: Ways) -> int:
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            return await resend_from(desk, (wanted, outcome), order, ways)


async def resend_from(desk: DeliveryDesk, chosen: tuple[Wanted, str], order: Order, ways: Ways) -> int:
    """Plan, ask and send; returns the exit code. Raises ConfigurationError where an endpoint is disabled, and where
    nobody can be asked."""
    entries = await _entries(desk, *chosen)
    targets, refused = await desk.resender.plan(entries)
    _check_open(desk, entries)
    _tell_plan(targets, refused, as_json=ways.as_json)
    if ways.dry_run or not targets:
        _tell_end(None, order, refused, as_json=ways.as_json)
        return 0 if targets and not refused else FAILED
    if not ways.yes:
        _ask(targets.total())
    copied = await desk.resender.run(entries, order)
    _tell_end(copied, order, refused, as_json=ways.as_json)
    return FAILED if refused else 0


async def _entries(desk: DeliveryDesk, wanted: Wanted, outcome: str) -> list[Entry]:
    if wanted.webhook_id is not None:
        return [entry async for entry in desk.log.entries(wanted)][-1:]
    if wanted.endpoint is not None:
        known.checked(wanted.endpoint, desk.catalog)
    return await ended_as(outcome, desk.log.entries(wanted))


def _check_open(desk: DeliveryDesk, entries: Sequence[Entry]) -> None:
    """Raise ConfigurationError where what is sent would only be undeliverable once more."""
    names = {entry.delivery.endpoint or "" for entry in entries}
    closed = sorted(name for name in names if not state_of(desk.state.endpoints.get(name)).open)
    if closed:
        raise ConfigurationError(
            f"{', '.join(closed)} is disabled, so nothing was sent: run `pipeline endpoints enable {closed[0]}` first"
        )


def _tell_plan(targets: Counter[str], refused: Sequence[Refused], *, as_json: bool) -> None:
    if as_json:
        return
    for topic, number in targets.items():
        say(f"{number} to {topic}")
    for one in refused[:SHOWN]:
        say(f"not {one.entry.delivery.webhook_id}: {one.why}")
    if len(refused) > SHOWN:
        say(f"and {len(refused) - SHOWN} more that cannot be sent again; --json names them all")


def _tell_end(copied: int | None, order: Order, refused: Sequence[Refused], *, as_json: bool) -> None:
    if as_json:
        told = {one.entry.delivery.webhook_id: one.why for one in refused}
        print_json({"resend": None if copied is None else order.id, "sent": copied or 0, "refused": told})
    elif copied is None:
        say("nothing was sent")
    else:
        say(f"{copied} sent again; `pipeline deliveries list` shows how they arrive")


def _ask(number: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{number} webhooks would be sent, and there is nobody to ask: give --yes, or --dry-run"
        )
    typer.confirm(f"Send {number} webhooks again?", abort=True, err=True)


# ------------------------------------------------------------------ options


def _moment(text: str | None, option: str) -> int | None:
    return None if text is None else moment(text, wiring.CLOCK(), f"--{option}")


def _outcome(name: str | None) -> str | None:
    if name is not None and name not in OUTCOMES:
        raise ConfigurationError(f"--outcome {name!r}: there are {', '.join(OUTCOMES)}")
    return name

"""`pipeline endpoints`: the webhook endpoints, whether they hear us, and turning them off and on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import delivering, wiring
from pipeline.cli.console import bars, print_json, print_text, when
from pipeline.cli.endpoint_name import Name
from pipeline.cli.endpoints_rotate import rotate
from pipeline.cli.operator import Operator, Reason, operator_of
from pipeline.cli.session import ERR, FAILED, OUT, complaints, configure, run, say
from pipeline.core.endpoints import state_of
from pipeline.core.letter_filter import moment
from pipeline.delivering import Trial
from pipeline.ops import endpoints as ops
from pipeline.ops.endpoints import Row
from pipeline.settings import Configured

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verbs = typer.Typer(help="The webhook endpoints: state, test, off and on, secrets.", no_args_is_help=True)
    verbs.command("list", epilog="Example: pipeline endpoints list --since 2h")(list_verb)
    verbs.command("test", epilog="Example: pipeline endpoints test crm")(try_verb)
    verbs.command("disable", epilog="Example: pipeline endpoints disable crm --reason 'moves house'")(disable)
    verbs.command("enable", epilog="Example: pipeline endpoints enable crm")(enable)
    verbs.command("rotate", epilog="Example: pipeline endpoints rotate crm, and a day later with --retire")(rotate)
    app.add_typer(verbs, name="endpoints")


# ------------------------------------------------------------------ list


def list_verb(
    since: Annotated[str, typer.Option(help="Count deliveries from then on: a time, or an age such as 2h.")] = "24h",
    as_json: Json = False,
) -> None:
    """List the endpoints: what each asks for, its state, and how its deliveries went."""
    configured = configure(level="WARNING")
    with complaints():
        since_ms = moment(since, wiring.CLOCK(), "--since")
    rows = run(_rows(configured, since_ms))
    if as_json:
        for row in rows:
            print_json(row.plain)
        return
    counted = ("delivered", "failed", "undeliverable")
    table = Table("endpoint", "state", "since", "by", "why", "asks for", *counted, "last")
    for row in rows:
        counts = [str(row.outcomes.get(name, 0)) for name in counted]
        cells = (row.endpoint, row.state, when(row.since_ms), row.by, row.why, _asks(row), *counts, _last(row))
        table.add_row(*map(escape, cells))
    OUT.print(table)


async def _rows(configured: Configured, since_ms: int) -> Sequence[Row]:
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            return ops.rows(desk.catalog, desk.state.endpoints, await desk.outcomes(since_ms))


def _asks(row: Row) -> str:
    kinds = ", ".join(kind.removeprefix("job.") for kind in row.events)
    return f"{kinds}; v{row.body_version}" + ("; ordered" if row.ordered else "") if row.events else ""


def _last(row: Row) -> str:
    if row.last_at_ms is None:
        return ""
    status = "" if row.last_status is None else f" {row.last_status}"
    return f"{row.last}{status}, {row.last_ms} ms, {when(row.last_at_ms)}"


# ------------------------------------------------------------------ test


def try_verb(name: Name, as_json: Json = False) -> None:
    """Post a signed `endpoint.test` message from here, and say how that went. Ends with 1 where it was refused."""
    configured = configure(level="WARNING")
    trial = run(delivering.try_endpoint(configured, name))
    if as_json:
        print_json(trial.plain)
    else:
        for sentence in _told(trial):
            print_text(sentence)
    raise typer.Exit(FAILED if trial.problem else 0)


def _told(trial: Trial) -> list[str]:
    lines = [f"{trial.endpoint} is reached at {', '.join(trial.addresses)}"] if trial.addresses else []
    lines += [f"it verifies with {', '.join(trial.keys)}"] if trial.keys else []
    if trial.problem:
        return [*lines, f"it cannot be delivered to: {trial.problem}"]
    return [*lines, f"it answered {trial.status} in {trial.duration_ms} ms to {trial.webhook_id}"]


# ------------------------------------------------------------------ off and on


def disable(name: Name, reason: Reason = "", operator: Operator = None, as_json: Json = False) -> None:
    """Disable an endpoint, for all workers: its messages are undeliverable until it is enabled."""
    configured = configure(level="WARNING")
    run(_disable(configured, name, reason, operator_of(operator)))
    _done(name, "disabled", "its messages are undeliverable until `pipeline endpoints enable`", as_json=as_json)


async def _disable(configured: Configured, name: str, reason: str, operator: str) -> None:
    ops.checked(name, wiring.catalog_of(configured))
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            await desk.tell(*ops.turned_off(name, operator, reason, wiring.CLOCK()))


def enable(name: Name, reason: Reason = "", operator: Operator = None, as_json: Json = False) -> None:
    """Enable an endpoint that is disabled. What was undeliverable meanwhile is sent by `pipeline deliveries resend`."""
    configured = configure(level="WARNING")
    run(_enable(configured, name, reason, operator_of(operator)))
    cure = f"`pipeline deliveries resend --endpoint {name}` sends what was undeliverable"
    _done(name, "enabled", cure, as_json=as_json)


async def _enable(configured: Configured, name: str, reason: str, operator: str) -> None:
    with bars(ERR) as progress:
        async with delivering.open_deliveries(configured, say, progress) as desk:
            standing = desk.state.endpoints.get(name)
            if standing is None:
                ops.checked(name, desk.catalog)
            await desk.tell(*ops.turned_on(name, state_of(standing), operator, reason, wiring.CLOCK()))


# ------------------------------------------------------------------ words


def _done(name: str, what: str, then: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"endpoint": name, "state": what})
    else:
        say(f"{name} is {what}: {then}")

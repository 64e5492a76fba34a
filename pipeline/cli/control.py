"""`pipeline pause`, `resume`, `cancel` and `control`: what a person tells all workers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import wiring
from pipeline.cli.console import print_json
from pipeline.cli.operator import Operator, Reason, operator_of
from pipeline.cli.session import ERR, MISUSED, OUT, complaints, configure, run, say
from pipeline.core.control import ControlState, Entry, describe_scope
from pipeline.ops.control import Scope, audited, cancelling, listed, pausing, resuming
from pipeline.settings import Configured
from pipeline.topology import AUDIT

Stage = Annotated[str | None, typer.Option("--stage", help="Only at this stage.")]
Kind = Annotated[str | None, typer.Option("--type", help="Only jobs of this event type.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only jobs of this tenant.")]
Model = Annotated[str | None, typer.Option("--model", help="Only jobs that this model answers.")]
All = Annotated[bool, typer.Option("--all", help="Everything, at all stages.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(epilog="Example: pipeline pause --stage infer --tenant acme --reason 'their quota is spent'")(pause)
    app.command(epilog="Example: pipeline resume --stage infer --tenant acme")(resume)
    app.command(epilog="Example: pipeline cancel 9b2f7c1e-5d0a-5c55-9d0c-0f6f6a1f6e51")(cancel)
    app.command("control", epilog="Example: pipeline control --json")(control)


def pause(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    stage: Stage = None,
    kind: Kind = None,
    tenant: Tenant = None,
    model: Model = None,
    everything: All = False,
    reason: Reason = "",
    operator: Operator = None,
) -> None:
    """Pause work until `resume`, over restarts too. What runs is finished; what waits keeps its deadline."""
    scope, configured = _scope(stage, kind, tenant, model, everything)
    entries = pausing(scope, reason, operator_of(operator), wiring.CLOCK())
    run(_tell(configured, lambda _: entries, operator))
    say(f"paused: {describe_scope(scope.pause('', '', 0))}")


def resume(  # each is an option of the command line
    stage: Stage = None,
    kind: Kind = None,
    tenant: Tenant = None,
    model: Model = None,
    everything: All = False,
    operator: Operator = None,
) -> None:
    """Take a pause back, given by the same options."""
    scope, configured = _scope(stage, kind, tenant, model, everything)
    run(_tell(configured, lambda state: resuming(scope, state), operator))
    say("resumed")


def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Ids of jobs, as `pipeline submit` prints them.")],
    reason: Reason = "",
    operator: Operator = None,
) -> None:
    """Cancel jobs, whether they are queued, wait or run: each ends by a failure event `cancelled`."""
    configured = configure(level="WARNING")
    run(_tell(configured, lambda _: cancelling(jobs, reason, operator_of(operator), wiring.CLOCK()), operator))
    say(f"{len(set(jobs))} cancelled; a job that has ended already stays as it is")


def control(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each.")] = False) -> None:
    """List what is in force: pauses and cancellations, with who said so and why."""
    state = run(_look(configure(level="WARNING")))
    if as_json:
        for entry in listed(state):
            print_json(entry)
        return
    table = Table("state", "what", "since", "by", "reason")
    for one in (*state.pauses.values(), *state.cancels.values(), *state.endpoints.values()):
        since = datetime.fromtimestamp(one.at_ms / 1000, UTC).isoformat(" ", "seconds")
        table.add_row(one.state, escape(describe_scope(one)), since, escape(one.operator), escape(one.reason))
    OUT.print(table)


async def _tell(
    configured: Configured, entries: Callable[[ControlState], Sequence[Entry]], operator: str | None
) -> None:
    async with wiring.open_control(configured, say, AUDIT.noun) as opened:
        said = entries(opened.state)
        await opened.tell(said, audited(said, operator_of(operator), wiring.CLOCK()))


async def _look(configured: Configured) -> ControlState:
    async with wiring.open_control(configured, say) as opened:
        return opened.state


def _scope(
    stage: str | None, kind: str | None, tenant: str | None, model: str | None, everything: bool
) -> tuple[Scope, Configured]:
    scope = Scope(stage, kind, tenant, model)
    if everything == scope.narrow:
        ERR.print("pipeline: give --stage, --type, --tenant or --model (several narrow it), or --all alone")
        raise typer.Exit(MISUSED)
    configured = configure(level="WARNING")
    with complaints():
        return scope.checked(wiring.STAGES, wiring.catalog_of(configured)), configured

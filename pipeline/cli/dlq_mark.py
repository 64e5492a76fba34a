"""`pipeline dlq resolve`, `reopen`, `assign` and `purge`: what a person does about dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from pipeline.cli.console import print_json, print_text
from pipeline.cli.dlq_desk import opened
from pipeline.cli.dlq_options import Asked, Why, Yes, asking, scope_of
from pipeline.cli.operator import Operator, operator_of
from pipeline.cli.session import ERR, FAILED, MISUSED, configure, run
from pipeline.core.letter_filter import LetterFilter
from pipeline.ops.letter_marks import Choice, MarkPlan, Purged, Wish, mark, plan_marks, purge_logs
from pipeline.ops.letters import Letters
from pipeline.ops.words import counted
from pipeline.settings import Configured

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of letters, or their places; else give a filter.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be done, to which letters, and whether a person need not be asked."""

    wish: Wish
    asked: Asked
    ids: Sequence[str]
    sure: bool
    as_json: bool


def register(dlq_app: typer.Typer) -> None:
    """Add the verbs."""
    dlq_app.command("resolve", epilog="Example: pipeline dlq resolve --fingerprint 9f14 --why 'done by hand'")(resolve)
    dlq_app.command("reopen", epilog="Example: pipeline dlq reopen 4f6c1a52-8f0e-5d0e-9a38-0d1f6c0b7e55")(reopen)
    dlq_app.command("assign", epilog="Example: pipeline dlq assign --to ann --stage infer --reason 'model_*'")(assign)
    dlq_app.command("purge", epilog="Example: pipeline dlq purge --until 20d --why 'too old to matter' --yes")(purge)


@asking
def resolve(
    asked: Asked,
    ids: Ids = None,
    why: Why = "",
    operator: Operator = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say of dead letters that nothing more need be done."""
    _do(_Order(Wish("resolve", operator_of(operator), why), asked, ids or (), yes, as_json))


@asking
def reopen(
    asked: Asked,
    ids: Ids = None,
    why: Why = "",
    operator: Operator = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take back what was said of dead letters, so that they are open again."""
    _do(_Order(Wish("reopen", operator_of(operator), why), asked, ids or (), yes, as_json))


@asking
def assign(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    asked: Asked,
    to: Annotated[str, typer.Option("--to", help="Who works on them.")],
    ids: Ids = None,
    why: Why = "",
    operator: Operator = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say who works on dead letters."""
    if not to.strip():
        _misused("--to is empty: name who works on them")
    _do(_Order(Wish("assign", operator_of(operator), why, to), asked, ids or (), yes, as_json))


@asking
def purge(
    asked: Asked,
    ids: Ids = None,
    why: Why = "",
    operator: Operator = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up for good, and delete those from the log that nothing stands before any more.

    Kafka deletes from the beginning of a log: a letter stays on disk until those before it are purged or expired.
    """
    if not why.strip() or not yes:
        _misused("what is purged cannot be brought back: purge needs --why and --yes")
    _do(_Order(Wish("purge", operator_of(operator), why), asked, ids or (), sure=True, as_json=as_json))


def _do(order: _Order) -> None:
    if bool(order.ids) == order.asked.filter.narrow:
        _misused("give ids of letters, or a filter such as --stage or --fingerprint; not both, and not neither")
    plan, done, purged = run(_done(configure(level="WARNING"), order))
    _tell(order, plan, done, purged)
    raise typer.Exit(FAILED if plan.refused and not done else 0)


async def _done(configured: Configured, order: _Order) -> tuple[MarkPlan, int, Purged | None]:
    async with opened(configured, order.asked) as letters:
        choice = await _choice(letters, order)
        plan = await plan_marks(letters, choice, order.wish)
        if plan.letters and not order.ids and not order.sure:
            typer.confirm(f"{plan.letters} dead letters: {order.wish.move} them?", abort=True, err=True)
        done = await mark(letters, choice, order.wish, plan, scope_of(order.asked, order.ids))
        purged = await purge_logs(letters, plan) if order.wish.move == "purge" else None
        return plan, done, purged


async def _choice(letters: Letters, order: _Order) -> Choice:
    if order.ids:
        return Choice(LetterFilter(), order.asked.limit, await letters.find_all(order.ids))
    return Choice(order.asked.filter, order.asked.limit)


def _tell(order: _Order, plan: MarkPlan, done: int, purged: Purged | None) -> None:
    move = order.wish.move
    if order.as_json:
        told: dict[str, object] = {"move": move, "letters": done, "refused": dict(plan.refused)}
        if purged is not None:
            told |= {"deleted": purged.deleted, "waiting": purged.waiting, "forgotten": purged.forgotten}
        print_json(told)
        return
    word = {"resolve": "resolved", "reopen": "reopened", "assign": f"assigned to {order.wish.assignee}"}.get(move)
    print_text(f"{counted(done, 'dead letter')} {word or 'purged'}")
    for why, count in plan.refused.most_common():
        print_text(f"{count} left as they were: {why}")
    if purged is not None:
        print_text(f"{purged.deleted} deleted from the log; {purged.waiting} stay on disk until those before them go")
        if purged.forgotten:
            print_text(f"{purged.forgotten} entries of letters that are long gone were cleared away")


def _misused(sentence: str) -> None:
    ERR.print(f"pipeline: {sentence}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(MISUSED)

"""`pipeline dlq replay`: dead letters go back to the stages that gave up on them, after a plan that changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import replaying, wiring
from pipeline.cli.console import bars, print_json, print_text
from pipeline.cli.dlq_options import Asked, Why, Yes, asking, stage_names
from pipeline.cli.operator import Operator, operator_of
from pipeline.cli.session import ERR, FAILED, INTERRUPTED, MISUSED, OUT, complaints, configure, lines_of, run, say
from pipeline.core.errors import ConfigurationError
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.replay import GUARD_SECONDS, MAX_REPLAYS, Rules
from pipeline.core.replay_patch import asked_patch
from pipeline.ops.replay import Replays
from pipeline.ops.replay_audit import asked_before, details_of
from pipeline.ops.replay_journal import TakenOver
from pipeline.ops.replay_plan import BY_KEY, Plan, Wanted, sentences
from pipeline.ops.replay_run import DEFAULT_RATE, Report
from pipeline.ops.replay_work import Person
from pipeline.ops.words import counted
from pipeline.settings import Configured

Names = list[str] | None
Ids = Annotated[Names, typer.Argument(help="Ids of letters, as `--letter` takes them.", show_default=False)]
File = Annotated[Path | None, typer.Option("--file", help="Only the letters of such an export; `-` reads them here.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")]
Rate = Annotated[float, typer.Option("--rate", min=0.001, max=1_000_000, help="So many letters a second.")]
Again = Annotated[bool, typer.Option("--again", help="Letters that were replayed already, too.")]
Most = Annotated[int, typer.Option("--max-replays", min=1, help="After so many replays work is quarantined.")]
Guard = Annotated[
    float, typer.Option("--guard", min=0, help="Seconds for which what came back with the same failure stays.")
]
Extend = Annotated[float | None, typer.Option("--extend", min=1, help="Give the jobs so many seconds from now.")]
Undecodable = Annotated[bool, typer.Option("--undecodable", help="Letters that cannot be decoded even now, too.")]
Set = Annotated[Names, typer.Option("--set", help="NAME=VALUE: type, model or max_output_tokens; another run.")]
To = Annotated[
    str,
    typer.Option(
        "--to", help="The stage for letters of others, or of stages that are no more.", autocompletion=stage_names
    ),
]
From = Annotated[
    str,
    typer.Option(
        "--from", help="Do the jobs again from this earlier stage on; another run.", autocompletion=stage_names
    ),
]
Resume = Annotated[str | None, typer.Option("--resume", help="Go on with the replay of this id, as it was asked for.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="End a replay that somebody else has under way.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: a line for the plan, and one for the run.")]


@dataclass(frozen=True, slots=True)
class _Order:
    """How to go about it."""

    topics: Sequence[str]
    dry_run: bool
    yes: bool
    rate: float
    resumed: bool
    take_over: bool
    person: Person
    as_json: bool


def register(dlq_app: typer.Typer) -> None:
    """Add the verb."""
    example = "Example: pipeline dlq replay --stage infer --reason 'model_*' --since 2h --dry-run"
    dlq_app.command("replay", epilog=example)(replay)


@asking
def replay(  # noqa: PLR0913, PLR0917  # each is an option of the command line
    asked: Asked,
    ids: Ids = None,
    file: File = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    rate: Rate = DEFAULT_RATE,
    again: Again = False,
    most: Most = MAX_REPLAYS,
    guard: Guard = GUARD_SECONDS,
    extend: Extend = None,
    undecodable: Undecodable = False,
    changes: Set = None,
    to: To = "",
    source: From = "",
    resume: Resume = None,
    take_over: TakeOver = False,
    why: Why = "",
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """Bring dead letters back to the stage that gave up on them, each as it was, and tell what that will cost first.

    It may be stopped or killed at any time: the same command, or --resume, goes on, and nothing is lost or repeated.
    Ends with 0 when it is done, 1 when another replay took over, 2 when nothing could be begun, 130 when stopped.
    """
    configured = configure(level="WARNING")
    with complaints():
        patch = asked_patch(changes or (), wiring.catalog_of(configured))
        name = resume or _new_id(wiring.CLOCK())
        rules = Rules(name, again, most, guard, extend, undecodable, patch, to, source)
        wanted = _wanted(asked, ids or (), file)
    person = Person(operator_of(operator), why)
    order = _Order(asked.topics, dry_run, yes, rate, resume is not None, take_over, person, as_json)
    raise typer.Exit(run(_replay(configured, order, rules, wanted)))


async def _replay(configured: Configured, order: _Order, rules: Rules, wanted: Wanted) -> int:
    async with replaying.open_replays(configured, say, order.topics) as replays:
        if order.resumed:
            rules, wanted = await _resumed(replays, rules, wanted)
        with bars(ERR) as progress:
            plan = await replays.plan(rules, wanted, progress)
        _show(plan, as_json=order.as_json)
        if order.dry_run:
            return 0
        if not plan.tally.going and not plan.worn:
            say("nothing is to be replayed")
            return 0
        if not order.yes:
            _ask(plan)
        with bars(ERR) as progress, _stoppable() as stop:
            work = replays.run(plan, order.person, order.rate, stop, progress)
            try:
                report = await work.run(details_of(plan, wanted), resumed=order.resumed, take_over=order.take_over)
            except TakenOver as error:
                ERR.print(f"[bold red]pipeline:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
                return FAILED
    _tell(report, plan, as_json=order.as_json)
    return INTERRUPTED if report.stopped else 0


async def _resumed(replays: Replays, rules: Rules, wanted: Wanted) -> tuple[Rules, Wanted]:
    """Ask for what was asked for before, unless options say something else."""
    named = frozenset(wanted.filter.letters)
    if rules != Rules(rules.replay) or wanted not in (Wanted(), Wanted(LetterFilter(letters=wanted.filter.letters))):
        return rules, wanted
    return asked_before(await replays.earlier(rules.replay), named)


def _wanted(asked: Asked, ids: Sequence[str], file: Path | None) -> Wanted:
    letters = frozenset((*asked.filter.letters, *ids))
    if file is not None:
        listed = frozenset(_of_file(file))
        if not listed:
            raise ConfigurationError(f"{file} holds no letter")
        letters = listed & letters if letters else listed
    return Wanted(replace(asked.filter, letters=letters or ()), asked.limit)


def _new_id(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def _of_file(path: Path) -> Iterator[str]:
    """Read the ids of an export's letters."""
    lines, origin = lines_of(path)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield str(json.loads(line)["letter"])
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"{origin}, line {number}: not a letter of `pipeline dlq export`, a JSON object that tells its id"
            ) from None


# ---------------------------------------------------------------------------------------------------- asking


def somebody_there() -> bool:
    """Whether a person can be asked."""
    return ERR.is_terminal and sys.stdin.isatty()


def _ask(plan: Plan) -> None:
    if not somebody_there():
        ERR.print("pipeline: nobody can be asked here: look at --dry-run, then say --yes", highlight=False)
        raise typer.Exit(MISUSED)
    tally = plan.tally
    paid = f", for ${tally.cost.usd:.4f} at the most" if tally.cost.usd else ""
    # While a terminal is waited for, Ctrl-C is to end the wait and not to cancel a task that cannot hear it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typer.confirm(f"Replay {tally.going} letters{paid}?", abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _stoppable() -> Iterator[asyncio.Event]:
    """Let SIGTERM and Ctrl-C end the run after the transaction under way; a second one ends it at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            # What is open is aborted by whoever replays next: nothing is half done.
            os._exit(INTERRUPTED)
        say("stopping after the transaction under way")
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, asked)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


# ---------------------------------------------------------------------------------------------------- telling


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json({"replay": plan.rules.replay, "plan": plan.tally.told()})
        return
    tally = plan.tally
    print_text(f"replay {plan.rules.replay}: {tally.going} of {tally.selected} letters go")
    if tally.places:
        OUT.print(_places(plan))
        OUT.print(_reasons(plan))
        print_text("failed: " + ", ".join(f"{count} {age} ago" for age, count in tally.ages.most_common()))
        print_text(_cost(plan))
    if tally.undecodable:
        print_text(f"{tally.undecodable} of them cannot be decoded, and go all the same")
    if tally.done:
        print_text(f"{tally.done} went before, in this same replay")
    for sentence in sentences(tally.refused):
        print_text(f"not replayed: {sentence}")


def _places(plan: Plan) -> Table:
    table = Table("to", "topic", "partitions", "letters")
    grouped: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for place, count in sorted(plan.tally.places.items()):
        grouped.setdefault((place.stage, place.topic), []).append((place.partition, count))
    for (stage, topic), parts in grouped.items():
        numbers = [str(number) for number, _ in parts if number != BY_KEY]
        total = sum(count for _, count in parts)
        table.add_row(stage, escape(topic), ", ".join(numbers) or "by key", str(total))
    return table


def _reasons(plan: Plan) -> Table:
    table = Table("stage", "reason", "letters")
    for why, count in plan.tally.reasons.most_common(_SHOWN):
        table.add_row(escape(why.stage), escape(why.code), str(count))
    return table


def _cost(plan: Plan) -> str:
    cost = plan.tally.cost
    told = f"it will take {counted(cost.calls, 'call')} of models, with {cost.prompt_tokens} tokens in and "
    told += f"{cost.completion_tokens} tokens out at the most: ${cost.usd:.4f}"
    if cost.embedding_tokens:
        told += f"; {cost.embedding_tokens} tokens are embedded"
    return told + (f"; {cost.unpriced} more could not be estimated" if cost.unpriced else "")


def _tell(report: Report, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json({"replay": plan.rules.replay, "run": report.told()})
        return
    rate = report.copies / report.seconds if report.seconds else 0.0
    print_text(f"{counted(report.replayed, 'letter')} replayed in {report.seconds:.1f} s ({rate:.0f} a second)")
    if report.quarantined:
        print_text(f"{report.quarantined} quarantined: they were replayed too often")
    for sentence in sentences(report.refused):
        print_text(f"not replayed after all: {sentence}")
    if report.stopped:
        print_text(f"stopped: `pipeline dlq replay --resume {plan.rules.replay}` goes on")


_SHOWN = 20

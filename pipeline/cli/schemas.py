"""`pipeline schemas register` and `diff`: our schemas in a schema registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import wiring
from pipeline.cli.console import bars, print_json, print_text
from pipeline.cli.session import ERR, FAILED, OUT, configure, run, say
from pipeline.core.errors import ConfigurationError
from pipeline.core.subjects import FULL_TRANSITIVE, OwnSchema, Subjects
from pipeline.ops.schema_registry import Done, SetLevel, Step, SubjectState, carry_out, look, plan
from pipeline.resources import resource
from pipeline.settings import Configured
from pipeline.wire.schemas import load_schemas

ANSWER_SECONDS = 30.0
"""How long a registry may think; a person waits longer than a record does."""

KeepLevel = Annotated[
    bool, typer.Option("--keep-level", help="Leave the subjects' compatibility levels to somebody else.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON line for each.")]


@dataclass(frozen=True, slots=True)
class _Desk:
    """A registry, and what it should have."""

    subjects: Subjects
    own: Sequence[OwnSchema]
    address: str


def register(app: typer.Typer) -> None:
    """Add the verbs to `pipeline schemas`."""
    app.command("diff", epilog="Example: pipeline schemas diff --json")(diff)
    app.command("register", epilog="Example: pipeline schemas register --dry-run")(register_missing)


def diff(keep_level: KeepLevel = False, as_json: AsJson = False) -> None:
    """Compare the schema registry with the program's schemas, changing nothing; exit code 1 where they differ."""
    states = run(_look(configure(level="WARNING")))
    if as_json:
        for state in states:
            print_json(state.as_json(keep_level=keep_level))
    else:
        OUT.print(_table(states, keep_level))
    differ = any(state.differences(keep_level=keep_level) for state in states)
    raise typer.Exit(FAILED if differ else 0)


def register_missing(
    keep_level: KeepLevel = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register the schemas that the registry lacks, oldest first, each subject at level FULL_TRANSITIVE."""
    raise typer.Exit(run(_register(configure(level="WARNING"), keep_level, dry_run, as_json)))


async def _look(configured: Configured) -> list[SubjectState]:
    async with _desk(configured) as desk:
        return await _states(desk)


async def _states(desk: _Desk) -> list[SubjectState]:
    total = len({schema.subject for schema in desk.own})
    found: list[SubjectState] = []
    with bars(ERR) as progress:
        async for state in look(desk.subjects, desk.own):
            found.append(state)
            progress("comparing subjects", len(found), total)
    return found


async def _register(configured: Configured, keep_level: bool, dry_run: bool, as_json: bool) -> int:
    async with _desk(configured) as desk:
        steps = plan(await _states(desk), keep_level=keep_level)
        if dry_run:
            for step in steps:
                _tell(Done(step), as_json, would=True)
        refused = 0 if dry_run else await _carry_out(desk, steps, as_json)
        if not steps:
            say(f"the schema registry at {desk.address} has everything already")
        return FAILED if refused else 0


async def _carry_out(desk: _Desk, steps: Sequence[Step], as_json: bool) -> int:
    refused = done = 0
    with bars(ERR) as progress:
        async for one in carry_out(desk.subjects, steps):
            done += 1
            refused += bool(one.refusal)
            progress("registering", done, len(steps))
            _tell(one, as_json)
    return refused


def _tell(done: Done, as_json: bool, *, would: bool = False) -> None:
    step = done.step
    if as_json:
        about = {"subject": step.subject if isinstance(step, SetLevel) else step.schema.subject}
        about |= {"level": FULL_TRANSITIVE} if isinstance(step, SetLevel) else {"file": step.schema.file}
        print_json({**about, "id": done.id, "refused": done.refusal or None, "done": not would})
    elif done.refusal:
        ERR.print(f"[bold red]refused[/]  {escape(done.refusal)}", highlight=False, soft_wrap=True)
    elif isinstance(step, SetLevel):
        verb = "would set" if would else "set"
        print_text(f"{verb}  {step.subject} to {FULL_TRANSITIVE} (it was {step.before})")
    else:
        verb, number = ("would register", "") if would else ("registered", f" as id {done.id}")
        print_text(f"{verb}  {step.schema.file} under {step.schema.subject}{number}")


def _table(states: Sequence[SubjectState], keep_level: bool) -> Table:
    table = Table("", "subject", "level", "ours", "differences")
    for state in states:
        found = state.differences(keep_level=keep_level)
        ours = (f"v{own.number} is id {there.id}" if there else f"v{own.number} missing" for own, there in state.ours)
        mark = "[yellow]differs[/]" if found else "[green]equal[/]"
        table.add_row(mark, state.subject, state.level, ", ".join(ours), escape("; ".join(found)))
    return table


@asynccontextmanager
async def _desk(configured: Configured) -> AsyncIterator[_Desk]:
    url = configured.environment.get("SCHEMA_REGISTRY_URL")
    if not url:
        raise ConfigurationError(
            "SCHEMA_REGISTRY_URL is not set: name the address of a Confluent-compatible schema registry there "
            "(without one, schemas are files of the program and nothing needs to be registered)"
        )
    from pipeline.wire.registry import RegistryConfig  # noqa: PLC0415  # 0.3 s, for these verbs alone
    from pipeline.wire.registry_subjects import open_subjects, own_schemas  # noqa: PLC0415  # the same

    prefix = configured.settings.topic_prefix
    own = own_schemas(load_schemas(resource("schemas")), prefix)
    async with open_subjects(RegistryConfig(url, prefix, timeout=ANSWER_SECONDS), wiring.CLOCK) as subjects:
        yield _Desk(subjects, own, subjects.address)

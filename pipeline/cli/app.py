"""The verbs. Each says what it does and shows an example; what it does is written elsewhere."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline import wiring
from pipeline.cli import (
    commands,
    control,
    deliveries,
    dlq,
    embedded,
    endpoints,
    explain,
    index_audit,
    index_rebuild,
    schemas,
    tail,
    work,
)
from pipeline.cli.console import bars
from pipeline.cli.entry import no_verbs
from pipeline.cli.index import index_app
from pipeline.cli.session import (
    ERR,
    FAILED,
    MISUSED,
    OUT,
    complaints,
    configure,
    lines_of,
    origin_of,
    run,
    say,
    setting_names,
)
from pipeline.cli.shows import answers, changes, summary_line
from pipeline.cli.simulate import simulate
from pipeline.core.payloads import Request
from pipeline.devkit.runfolder import RunFolder
from pipeline.settings import FOREIGN, masked
from pipeline.telemetry import logs

app = no_verbs()
topics_app = typer.Typer(help="The topics of the pipeline.", no_args_is_help=True)
schemas_app = typer.Typer(help="The schemas of the topics.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(index_app, name="index")
control.register(app)
deliveries.register(app)
dlq.register(app)
endpoints.register(app)
explain.register(app)
tail.register(app)
schemas.register(schemas_app)
index_audit.register(index_app)
index_rebuild.register(index_app)


@app.command(epilog="Example: pipeline up --samples")
def up(
    stages: Annotated[bool, typer.Option(help="Run all stages, too; without, only what they need.")] = True,
    samples: Annotated[bool, typer.Option("--samples", help="Index the sample documents.")] = False,
) -> None:
    """Start everything embedded and stay until Ctrl-C: broker, model, webhook receiver, stages."""
    configured = configure(own=True)
    with bars(ERR) as progress:
        code = run(embedded.up(configured, embedded.UpOptions(stages, samples), progress, say))
    raise typer.Exit(code)


@app.command(epilog="Example: pipeline down")
def down() -> None:
    """Stop the `up` or `demo` of this folder, and clear what a crashed one has left."""
    configured = configure(own=True)
    folder = RunFolder(configured.data)
    owner = folder.owner()
    if owner is None:
        folder.env.unlink(missing_ok=True)
        say("nothing runs in this folder")
        return
    verb, _, pid = owner.partition(" ")
    os.kill(int(pid), signal.SIGTERM)
    commands.wait_for_end(folder)
    say(f"`pipeline {verb}` (process {pid}) has ended")


@app.command(epilog="Example: pipeline demo --processes")
def demo(
    processes: Annotated[bool, typer.Option("--processes", help="Run each stage in a process of its own.")] = False,
) -> None:
    """Answer the sample requests from the sample documents, start to end, and judge the answers."""
    configured = configure(own=True, level="WARNING")
    with bars(ERR) as progress:
        rows, summary = run(embedded.demo(configured, processes=processes, progress=progress, say=say))
    OUT.print(answers(rows))
    OUT.print(summary_line(summary), highlight=False, soft_wrap=True)
    raise typer.Exit(0 if summary.passed else FAILED)


@app.command("cdc", hidden=True, epilog="Example: pipeline cdc")
def cdc_verb() -> None:
    """Let the index follow a PostgreSQL of its own by way of Debezium, and show an answer that changes with a row."""
    configured = configure(own=True, level="WARNING")
    with bars(ERR) as progress:
        steps = run(embedded.cdc(configured, progress=progress, say=say))
    OUT.print(changes(steps))
    raise typer.Exit(0 if all(step.right for step in steps) else FAILED)


work.register(app)


@app.command(epilog='Example: pipeline submit --type quick_answer --input "How long is a parcel kept?" --wait')
def submit(
    file: Annotated[Path | None, typer.Argument(help="JSON lines, one request each; - or nothing: stdin.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="The event type of one request.")] = None,
    text: Annotated[str | None, typer.Option("--input", help="The input of one request.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Its tenant.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the jobs to end, and print how they did.")] = False,
    timeout: Annotated[float, typer.Option(help="The longest wait, in seconds.")] = 300.0,
) -> None:
    """Send requests. Prints a JSON line per job: its id, or with --wait its result or failure."""
    configured = configure(level="WARNING")
    if (kind is None) != (text is None) or (kind is not None and file is not None):
        ERR.print("pipeline: give --type together with --input, or a file of JSON lines; not both")
        raise typer.Exit(MISUSED)
    if kind is not None and text is not None:
        work = commands.submit_one(configured, Request(type=kind, input=text, tenant=tenant), wait, timeout)
    else:
        lines, origin = lines_of(file)
        work = commands.submit_lines(configured, lines, origin, wait=wait, timeout=timeout)
    raise typer.Exit(run(work))


@topics_app.command("create", epilog="Example: pipeline topics create")
def topics_create() -> None:
    """Create the topics that are missing."""
    run(commands.topics_create(configure(level="WARNING")))


@topics_app.command("grow", epilog="Example: pipeline topics grow 24")
def topics_grow(
    partitions: Annotated[int, typer.Argument(min=1, max=10_000, help="The new number of partitions.")],
) -> None:
    """Raise the partition count of the chain's topics while the stages run; what was interrupted can be run again."""
    run(commands.topics_grow(configure(level="WARNING"), partitions))


@topics_app.command("check", epilog="Example: pipeline topics check")
def topics_check() -> None:
    """Check that all topics exist, with equal partition counts and settings under which nothing is lost."""
    raise typer.Exit(run(commands.topics_check(configure(level="WARNING"))))


@schemas_app.command("check", epilog="Example: pipeline schemas check")
def schemas_check(
    folder: Annotated[Path | None, typer.Argument(help="The folder; the program's own unless given.")] = None,
) -> None:
    """Check that every version of each schema is compatible with all others, in both directions."""
    raise typer.Exit(commands.schemas_check(folder))


@app.command("doctor", epilog="Example: pipeline doctor")
def doctor_verb() -> None:
    """Look at what the pipeline needs on this machine: what is missing, and the cure."""
    raise typer.Exit(run(commands.examine(configure(level="ERROR"))))


@app.command("simulate", epilog="Example: pipeline simulate --seeds 1000")
def simulate_verb(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to play.")] = 100,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Play this one only.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="In so many; one for each core unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Crash the whole pipeline in memory, in virtual time, in ways drawn from seeds, and check its promises."""
    logs.configure(level="CRITICAL")
    chosen = range(first, first + seeds) if seed is None else [seed]
    with complaints():
        code = simulate(chosen, as_json=as_json, processes=processes)
    raise typer.Exit(code)


@app.command(epilog="Example: pipeline config --json")
def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the effective settings and where each comes from; secrets are masked."""
    configured = configure()
    rows = [(f"PIPELINE_{name.upper()}", *origin_of(name, configured)) for name in setting_names()]
    for stage, one in wiring.STAGES.items():
        value = configured.concurrency.get(stage)
        name = f"PIPELINE_{stage.upper()}_CONCURRENCY"
        rows.append((name, str(value or one.concurrency), "environment" if value else "default"))
    foreign = set(FOREIGN) | set(configured.environment.starting("KAFKA_"))
    for name in sorted(foreign):
        found = configured.environment.find(name)
        rows.append((name, masked(name, found.text) if found else "", found.origin if found else "unset"))
    if as_json:
        OUT.print_json(json.dumps([dict(zip(("name", "value", "origin"), row, strict=True)) for row in rows]))
        return
    table = Table("variable", "value", "from")
    for row in rows:
        table.add_row(*row)
    OUT.print(table)

"""`pipeline run`: stages in this process, until SIGTERM or Ctrl-C; a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline import wiring
from pipeline.cli.session import FAILED, configure, run, say
from pipeline.runtime.worker import Worker
from pipeline.settings import Configured
from pipeline.telemetry import logs


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("run", epilog="Example: pipeline run retrieve index")(run_verb)


def run_verb(
    stages: Annotated[list[str], typer.Argument(help="Names of stages; several run in one process.")],
    accept: Annotated[
        int,
        typer.Option(
            "--accept-dead-letters", min=0, help="Let so many dead letters pass before a flood halts a stage."
        ),
    ] = 0,
) -> None:
    """Run stages in this process until SIGTERM or Ctrl-C; a second one ends it at once."""
    configured = configure()
    raise typer.Exit(run(run_stages(configured, stages, accept)))


async def run_stages(configured: Configured, stages: Sequence[str], accept_dead: int = 0) -> int:
    """Run `stages` until told to stop; returns the exit code."""
    async with wiring.open_worker(configured, stages, say, accept_dead) as opened:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _asked, opened.worker)
        logs.get().info("worker: probes", action="worker.probes", url=opened.probes, stages=list(stages))
        return await opened.worker.run()


def _asked(worker: Worker) -> None:
    if worker.stopping:
        # Asked twice: whoever asks does not want to wait. What is not settled was not committed.
        os._exit(FAILED)
    worker.stop()

"""What every verb begins with: settings, logs, a console, and one way to end on an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from pipeline import wiring
from pipeline.core.errors import PipelineError
from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.devkit.runfolder import RunFolder
from pipeline.settings import Configured, Environment, Settings, load
from pipeline.telemetry import logs

T = TypeVar("T")

WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
"""A file or a pipe has no width of its own; eighty columns would break every cell of a table."""

OUT = Console(width=WIDE)
ERR = Console(stderr=True)

MISUSED, FAILED, INTERRUPTED = 2, 1, 130


def configure(*, own: bool = False, level: str | None = None) -> Configured:
    """Load the settings and set up logging. With `own`, addresses of a running `up` are not looked for."""
    with complaints():
        environ = dict(os.environ)
        configured = load(Environment(environ), wiring.STAGES)
        if not own:
            configured = load(Environment(environ, RunFolder(configured.data).addresses()), wiring.STAGES)
    settings = configured.settings
    quiet = level if level and "PIPELINE_LOG_LEVEL" not in environ else None
    logs.configure(settings.log_format, quiet or settings.log_level, color=not ERR.no_color)
    return configured


def say(text: str) -> None:
    """Tell the person what goes on."""
    ERR.print(f"[dim]{escape(text)}[/]", highlight=False)


@contextmanager
def complaints() -> Iterator[None]:
    """End with one sentence and a code above 0 where what is wrong is for a person to mend."""
    try:
        yield
    except (PipelineError, EmbeddedKafkaError, FileNotFoundError, TimeoutError) as error:
        ERR.print(f"[bold red]pipeline:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(MISUSED) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. SIGTERM and the first Ctrl-C cancel it, so that everything it opened is closed."""
    with complaints(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_cancelled_by_sigterm(work))


async def _cancelled_by_sigterm(work: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    with contextlib.suppress(NotImplementedError, RuntimeError):
        if task is not None:
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def origin_of(name: str, configured: Configured) -> tuple[str, str]:
    """Return a setting's effective value as text, and where it comes from."""
    found = configured.environment.find(f"PIPELINE_{name.upper()}")
    value = getattr(configured.settings, name)
    return ("" if value is None else str(value)), (found.origin if found else "default")


def setting_names() -> list[str]:
    """List the names of all settings."""
    return list(Settings.model_fields)


def lines_of(path: Path | None) -> tuple[Iterator[str], str]:
    """Open a file of lines, or standard input for None and `-`; returns the lines and the name for messages."""
    if path is None or str(path) == "-":
        return iter(sys.stdin), "standard input"
    return iter(path.read_text(encoding="utf-8").split("\n")), str(path)

"""What a person sees on a terminal: lines, times and progress. NO_COLOR and pipes are respected by rich itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Timer

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from pipeline.cli.session import OUT

ID_CHARACTERS = 36
SHOW_AFTER = 2.0
"""Seconds after which long work shows a bar; shorter work would only flicker."""


def print_json(value: object) -> None:
    """Print a JSON line: it is for programs, and is never wrapped or coloured."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_text(text: str) -> None:
    """Print a line for people as it is, however long, without colours."""
    OUT.print(text, highlight=False, markup=False, soft_wrap=True)


def id_column(name: str) -> Column:
    """Make the column of what other verbs ask for: it can be copied from here, however narrow the terminal."""
    return Column(name, no_wrap=True, min_width=ID_CHARACTERS)


def when(at_ms: int | None) -> str:
    """Spell a time for people: UTC, to the second; a dash for none."""
    if at_ms is None or at_ms <= 0:
        return "-"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):
        return str(at_ms)


class Bars:
    """Progress of long work: bars on a terminal once it takes more than two seconds, else nothing.

    A timer shows them, not the next step: what hangs in its first step is what a person wants to see.
    """

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._timer = Timer(SHOW_AFTER, self._progress.start)
        self._timer.daemon = True
        if console.is_terminal:
            self._timer.start()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of `what` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total, visible=done < total)

    def close(self) -> None:
        """Take the bars away."""
        self._timer.cancel()
        if self._progress.live.is_started:  # what was never shown would leave an empty line
            self._progress.stop()


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Show progress while the block runs."""
    shown = Bars(console)
    try:
        yield shown
    finally:
        shown.close()

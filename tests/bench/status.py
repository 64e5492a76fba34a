"""How a program stands that runs until it is told to stop: written by itself, read by who started it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts of one moment. `at`, `began` and `first` are of the machine's monotonic clock, in seconds.

    `began` is when the program joined its group, `first` when its first record was handled (0 before). `cpu` is the CPU
    time of its process so far. `open` are records taken and not settled, `running` handlers at work.
    """

    at: float = 0.0
    began: float = 0.0
    first: float = 0.0
    cpu: float = 0.0
    settled: int = 0
    open: int = 0
    running: int = 0
    partitions: int = 0

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that nobody reads half of it."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)), encoding="utf-8")
        fresh.replace(path)


def read(path: Path) -> Status:
    """Read how a program stands; all zero where it has not said anything yet."""
    return Status(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Status()


class Teller:
    """Writes a status where it has changed: an idle program must not be kept busy by telling that it is idle."""

    def __init__(self, path: Path) -> None:
        """Begin with nothing told."""
        self._path = path
        self._last = Status()

    def tell(self, status: Status) -> None:
        """Write `status`, with the time and the CPU time of now, unless it says what was said last."""
        if status != self._last:
            self._last = status
            times = os.times()
            replace(status, at=time.monotonic(), cpu=times.user + times.system).write(self._path)

"""A line for each call of a handler, kept by the process that made it and compared by who started it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Call(NamedTuple):
    """One call for the record at (`partition`, `offset`), in seconds of the machine's monotonic clock.

    `due` is when it would end by itself; `ended` tells whether it did, for it can be cancelled before.
    """

    partition: int
    offset: int
    began: float
    due: float
    ended: bool


def write(calls: Sequence[Call], path: Path) -> None:
    """Leave the calls for who started this process."""
    path.write_text(json.dumps(calls), encoding="utf-8")


def read(path: Path) -> list[Call]:
    """Read what a process has left."""
    return [Call(*line) for line in json.loads(path.read_text(encoding="utf-8"))]

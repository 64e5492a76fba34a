"""What a person is told of a run: its history with times, what is wrong, and the way of each note concerned. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import headers as h
from pipeline.core.record import Record
from tests.system.workload.checker import Violation
from tests.system.workload.history import History, name_in

SHOWN = 10
"""How many violations are shown at length; the others are counted."""

_TOLD = (h.CE_ID, h.ATTEMPTS, h.DEFERRALS, h.NOT_BEFORE, h.ORIGINAL, h.SOURCE, h.PARENT, h.TRACEPARENT)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was done to the workers or the broker, `at` seconds after the beginning."""

    at: float
    what: str

    def __str__(self) -> str:
        """Spell it as one line."""
        return f"{self.at:7.2f} s  {self.what}"


def report(seed: int, deeds: Sequence[Deed], found: Sequence[tuple[History | None, Violation]], logs: Path) -> str:
    """Say what went wrong, with all that is needed to look into it."""
    lines = [f"{len(found)} violations with seed {seed}; the workers' logs are in {logs}", "", "What was done:"]
    lines += [str(deed) for deed in deeds]
    for history, violation in found[:SHOWN]:
        lines += ["", f"{history.variant.name if history else 'the run'}: {violation.kind}: {violation.what}"]
        for name in filter(None, (violation.name, violation.other)):
            lines += [f"    {line}" for line in (trail(history, name) if history else ())]
    if len(found) > SHOWN:
        lines += ["", f"... and {len(found) - SHOWN} more"]
    return "\n".join(lines)


def trail(history: History, name: str) -> Iterator[str]:
    """Tell the way of one note: every record about it, in the order of time, with the headers that matter."""
    about = [record for record in history.records if name_in(history, record) == name]
    for record in sorted(about, key=lambda record: (record.timestamp_ms, record.position)):
        yield _line(record, seen=record.position in history.visible)


def _line(record: Record, *, seen: bool) -> str:
    read = h.texts(record.headers)
    told = " ".join(f"{name}={read[name]}" for name in _TOLD if name in read)
    return f"{record.timestamp_ms} {record.position}{'' if seen else ' (aborted)'} {told}"

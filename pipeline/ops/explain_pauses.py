"""Pauses of the past, as the audit has them, and which records of a job had to wait meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.core.control import ControlState, Hold, key_of, pause_of
from pipeline.core.job import Job
from pipeline.core.payloads import Control
from pipeline.ops.explain_people import Note

PAUSED, RESUMED = "control.paused", "control.resumed"
"""What the audit calls them."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause as it was said. `until_ms` is when it was taken back, or said anew; 0 while it is in force."""

    entry: Control
    until_ms: int = 0

    def holds(self, stage: str, job: Job, model: str) -> bool:
        """Whether it keeps `stage` from records of `job`, which `model` answers."""
        alone = ControlState({key_of(self.entry): self.entry})
        return isinstance(alone.verdict(stage, job, model, self.entry.at_ms / 1000), Hold)

    def overlap(self, begin_ms: int, end_ms: int) -> range:
        """Return the part of a span of time (epoch ms) in which it was in force; empty where there is none."""
        return range(max(self.entry.at_ms, begin_ms), min(self.until_ms or end_ms, end_ms))


def says_pause(note: Note) -> bool:
    """Whether a note tells of a pause, or of its end."""
    return note.what in {PAUSED, RESUMED}


def pauses(notes: Iterable[Note]) -> Iterator[Pause]:
    """Find the pauses that the audit tells of, in the order of their ends; those still in force come last."""
    begun: dict[str, Control] = {}
    for note in sorted(filter(says_pause, notes), key=lambda one: one.at_ms):
        if (before := begun.pop(note.subject, None)) is not None:
            yield Pause(before, note.at_ms)
        if note.what == PAUSED and (entry := pause_of(note.subject, note.at_ms, note.operator, note.reason)):
            begun[note.subject] = entry
    yield from map(Pause, begun.values())

"""A record in the log, as the simulator books it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core import headers as h
from pipeline.core.record import Outgoing, Position


@dataclass(frozen=True, slots=True)
class Written:
    """A record in the log: when it was written, and by whom.

    `origin` is the place of what it came of, empty for what came from outside; `root` is where answers to it
    point: its own place, or where it is a copy its original's. `parent` is the event that it came of.
    """

    number: int
    at: float
    by: str
    position: Position
    record: Outgoing
    origin: str
    root: str
    id: str
    job: str
    parent: str = ""

    @property
    def told(self) -> bool:
        """Whether it only tells of a try, and is no end of anything."""
        return any(name == h.TRY for name, _ in self.record.headers)

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, as text."""
        return headers(self.record)


def headers(record: Outgoing) -> Mapping[str, str]:
    """Read the headers of a record as text."""
    return {name: (value or b"").decode("latin-1") for name, value in record.headers}

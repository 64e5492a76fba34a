"""The head-of-line detector: which record holds a partition's commit frontier, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core.record import Partition, Position
from pipeline.runtime.work import Item, Part

LATE_SECONDS = 60.0
"""A head is named in the log when it has held its frontier for so long, and again each time that has doubled."""


@dataclass(frozen=True, slots=True)
class Late:
    """A record to be named: it has stood at the head of its partition for `age` seconds, and `behind` are beyond it."""

    item: Item
    age: float
    behind: int

    @property
    def position(self) -> Position:
        """Where the record stands."""
        return self.item.record.position


class Heads:
    """Watches the oldest unsettled record of each partition. What a tier holds until it is due is never late."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._since: dict[Partition, tuple[Item, float, float]] = {}
        self.age = 0.0

    def look(self, parts: Iterable[Part], now: float) -> list[Late]:
        """Look at all heads at `now` (seconds); returns those to be named. `age` is then that of the oldest."""
        known, self._since, late = self._since, {}, []
        for part in parts:
            head = part.head()
            if head is None:
                continue
            item, since, named = known.get(part.name, (None, now, LATE_SECONDS))
            if item is not head:
                since, named = now, LATE_SECONDS
            if now - since >= named:
                late.append(Late(head, now - since, len(part.frontier) - 1))
                named = 2 * (now - since)
            self._since[part.name] = (head, since, named)
        self.age = max((now - since for _, since, _ in self._since.values()), default=0.0)
        return late

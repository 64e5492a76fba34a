"""Of all that is shown, the newest few."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.core.record import Position

T = TypeVar("T")


@dataclass(slots=True)
class Newest(Generic[T]):
    """Keeps the newest `most` of what it is shown; of two of one time, the one that stands later is the newer."""

    most: int
    _heap: list[tuple[int, Position, T]] = field(default_factory=list)
    _least: int = -1

    def add(self, at_ms: int, position: Position, one: T) -> None:
        """Show one more."""
        if at_ms < self._least or not self.most:
            return
        heapq.heappush(self._heap, (at_ms, position, one))
        if len(self._heap) > self.most:
            heapq.heappop(self._heap)
            self._least = self._heap[0][0]

    def taken(self) -> list[T]:
        """Return them, newest first."""
        return [one for _, _, one in sorted(self._heap, key=lambda one: one[:2], reverse=True)]

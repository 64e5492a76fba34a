"""The flood guard: when so many records die that the stage must be at fault, not they (design section 6.7). Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """A flood is `run` dead letters with nothing else between, or the share `ratio` of the last `window` records."""

    run: int = 100
    window: int = 1_000
    ratio: float = 0.5

    def __post_init__(self) -> None:
        """Fail at declaration."""
        if self.run < 1 or self.window < 1 or not 0 < self.ratio <= 1:
            raise ValueError(f"flood limits must be at least 1, and the ratio above 0 and at most 1: {self}")


class FloodGuard:
    """Counts dead letters against all other ends; failures are the requests' own and count as life.

    `before` is how many dead letters, at the end of the topic of dead letters, a former worker has left: a flood that
    has stopped it goes on being one, so a restart lets none through but the first to show that nothing has changed.
    `accepted`: a person lets so many pass uncounted.
    """

    def __init__(self, limits: FloodLimits, before: int = 0, accepted: int = 0) -> None:
        """Begin where the former worker ended."""
        self._limits = limits
        self._accepted = accepted
        self._run = min(before, limits.run - 1)
        self._ends: deque[bool] = deque(maxlen=limits.window)
        self._dead = 0

    def lived(self) -> None:
        """Count a record that came to any end but the dead letters."""
        self._run = 0
        self._count(dead=False)

    def died(self) -> bool:
        """Count a record that is to be a dead letter; False where that would be a flood, and it must not become one."""
        if self._accepted:
            self._accepted -= 1
            return True
        if self._run + 1 >= self._limits.run or self._flooded():
            return False
        self._run += 1
        self._count(dead=True)
        return True

    def describe(self) -> str:
        """Say what the flood is, in figures."""
        if self._run + 1 >= self._limits.run:
            return f"{self._limits.run} records in a row"
        return f"{self._dead + 1} of the last {self._limits.window + 1} records"

    def _flooded(self) -> bool:
        full = len(self._ends) == self._limits.window
        return full and self._dead + 1 >= self._limits.ratio * self._limits.window

    def _count(self, *, dead: bool) -> None:
        if len(self._ends) == self._limits.window:
            self._dead -= self._ends[0]
        self._ends.append(dead)
        self._dead += dead

"""Pace: when so many may go, at so many a second. Pure; the time is passed in, by any clock that never goes back."""

from __future__ import annotations

from dataclasses import dataclass, field

CATCH_UP_SECONDS = 1.0
"""What was held up is caught up with for so long; what stood still for longer is not followed by a burst."""


@dataclass(slots=True)
class Pace:
    """Lets `rate` go in a second, counted from `begun` (seconds)."""

    rate: float
    begun: float
    gone: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Fail at declaration."""
        if not self.rate > 0:
            raise ValueError(f"a rate is above 0: {self.rate}")

    def wait(self, now: float, count: int) -> float:
        """Tell after how many seconds so many may go together."""
        due = self.begun + (self.gone + count) / self.rate
        if (late := now - due - CATCH_UP_SECONDS) > 0:
            self.begun += late
        return max(0.0, due - now)

    def went(self, count: int) -> None:
        """Count what has gone."""
        self.gone += count

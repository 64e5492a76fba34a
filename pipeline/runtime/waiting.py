"""The waiting room: records that wait in place for a time to come, beside the others and without a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pipeline.core.ports import Clock

T = TypeVar("T")

LOOK_SECONDS = 60.0
"""How often a waiter whose clock was set back is looked at: such a clock may come back at any time."""


class WaitingRoom(Generic[T]):
    """Timers by the wall clock, one per waiter: a clock that jumps back makes them wait on, never fire early.

    Each waits at least as long as was asked for when it began, so a clock that jumps ahead makes none early either.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin empty."""
        self._clock = clock
        self._timers: dict[T, asyncio.TimerHandle] = {}

    def wait(self, waiter: T, until: float, then: Callable[[T], None]) -> None:
        """Call `then(waiter)` at `until` (seconds since the epoch) or a little later; replaces an earlier wait."""
        self.forget(waiter)
        self._set(waiter, max(0.0, until - self._clock()), until, then)

    def forget(self, waiter: T) -> None:
        """Wait no longer; `then` will not be called."""
        timer = self._timers.pop(waiter, None)
        if timer is not None:
            timer.cancel()

    def __iter__(self) -> Iterator[T]:
        """Go through the waiters."""
        return iter(self._timers)

    def clear(self) -> None:
        """Forget all."""
        for waiter in list(self._timers):
            self.forget(waiter)

    def __contains__(self, waiter: T) -> bool:
        """Tell whether `waiter` waits."""
        return waiter in self._timers

    def __len__(self) -> int:
        """Count the waiters."""
        return len(self._timers)

    def _due(self, waiter: T, until: float, then: Callable[[T], None]) -> None:
        del self._timers[waiter]
        left = until - self._clock()
        if left > 0:
            self._set(waiter, min(left, LOOK_SECONDS), until, then)
        else:
            then(waiter)

    def _set(self, waiter: T, delay: float, until: float, then: Callable[[T], None]) -> None:
        self._timers[waiter] = asyncio.get_running_loop().call_later(delay, self._due, waiter, until, then)

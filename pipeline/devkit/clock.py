"""Virtual time for tests: an event loop whose clock jumps to the next timer instead of waiting for it.

No test sleeps for real, an hour of retries takes milliseconds, and the order of timers is the same on every machine.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Mapping

EPOCH = 1_800_000_000.0
"""The wall clock's reading when a virtual loop starts, in seconds since the epoch."""


# While tasks are ready, descriptors are looked at only now and then: it is a system call each time.
_PATIENCE = 32


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: what the test waits for can never happen."""


class _Jumping(selectors.BaseSelector):
    """A selector that advances time where a real one would wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.DefaultSelector()
        self._looks = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._looks += 1
        if timeout == 0 and self._looks % _PATIENCE:
            return []
        ready = self._real.select(0)
        if ready:
            return ready
        if timeout is None:
            raise Stuck("virtual time has nothing left to wait for: a task awaits something nobody will ever do")
        if timeout > 0:
            # Rounded up: a sum that falls short of the timer's time by a bit would fire it early, and `while time() <
            # end` would spin for ever.
            self.now = math.nextafter(self.now + timeout, math.inf)
        return ready

    def register(self, fileobj: int, events: int, data: object = None) -> selectors.SelectorKey:  # type: ignore[override]  # narrower: the loop registers descriptors only
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: int) -> selectors.SelectorKey:  # type: ignore[override]  # as above
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[selectors._FileObject, selectors.SelectorKey]:  # type: ignore[name-defined]  # the stubs' own name
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. `wall()` is the Clock that belongs to it."""

    def __init__(self) -> None:
        """Start at `EPOCH`."""
        self._jumping = _Jumping()
        self.skew = 0.0
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.now

    def wall(self) -> float:
        """Return the wall clock: seconds since the epoch. `skew` makes it jump, as real clocks do."""
        return EPOCH + self._jumping.now + self.skew


def wall() -> float:
    """Return the wall clock of the running virtual loop."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError("wall() is the clock of tests in virtual time; this loop runs in real time")
    return loop.wall()

"""The garbage collector while a worker runs: by the clock more than by the number of objects."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""How many more objects are made than freed before the collector looks at the young ones.

A record is some sixty small objects, none of them in a cycle: all are freed without the collector. With Python's own
figure, 700, it looks at all that is in flight every dozen records, in vain, for a third of the CPU time of a stage that
does nothing else (measured). With this one it looks every thousand records.
"""
SECONDS = 1.0
"""How often it looks at the young ones in any case. What fails leaves a cycle of a few objects, an error and the frames
it came through, which hold what was worked on: seven thousand prompts would be waiting for the figure above."""
_YOUNG_ONES = 1


@contextmanager
def unhurried() -> Iterator[None]:
    """Let the collector look so inside the block; one that looks more rarely already is left alone.

    To be used on a running loop.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < YOUNG:
        yield
        return
    gc.set_threshold(YOUNG, *before[1:])
    clock = _Clock()
    try:
        yield
    finally:
        clock.stop()
        gc.set_threshold(*before)


class _Clock:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SECONDS, self._strike)

    def stop(self) -> None:
        self._timer.cancel()

    def _strike(self) -> None:
        gc.collect(_YOUNG_ONES)
        self._timer = self._loop.call_later(SECONDS, self._strike)

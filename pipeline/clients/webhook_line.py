"""Those that stay before an endpoint's gate for a moment: the next is called when one leaves, or at its time."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

_Waiting = deque[asyncio.Future[bool]]
"""Each is True when it is called, which takes it out of the line, and False when its time has come."""


class Line:
    """The lines before all lanes. Who is called asks the gate again: being called promises nothing."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lanes: dict[str, _Waiting] = {}

    async def wait(self, lane: str, seconds: float, *, first: bool = False) -> None:
        """Wait to be called, or for so many seconds; `first` of all, or else last."""
        loop, waiting = asyncio.get_running_loop(), self._lanes.setdefault(lane, deque())
        waiter: asyncio.Future[bool] = loop.create_future()
        if first:
            waiting.appendleft(waiter)
        else:
            waiting.append(waiter)
        timer, called = loop.call_later(seconds, _end, waiter, False), False
        try:
            called = await waiter
        finally:
            timer.cancel()
            if not called:
                with suppress(ValueError):  # it was called as it was cancelled
                    waiting.remove(waiter)
            if not waiting and self._lanes.get(lane) is waiting:
                del self._lanes[lane]

    def call(self, lane: str) -> None:
        """Call the one that has waited longest, where there is one."""
        waiting = self._lanes.get(lane)
        while waiting:
            if _end(waiting.popleft(), True):
                break


def _end(waiter: asyncio.Future[bool], called: bool) -> bool:  # call_later passes no names
    if waiter.done():
        return False
    waiter.set_result(called)
    return True

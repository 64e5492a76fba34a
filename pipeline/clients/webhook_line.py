"""Those that stay before an endpoint's gate for a moment: the next is called when one leaves, or at its time."""

from __future__ import annotations

import asyncio
from collections import deque


class Line:
    """The lines before all lanes. Who is called asks the gate again: being called promises nothing."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lanes: dict[str, deque[asyncio.Future[None]]] = {}

    async def wait(self, lane: str, seconds: float, *, first: bool = False) -> None:
        """Wait to be called, or for so many seconds; `first` of all, or else last."""
        loop, waiting = asyncio.get_running_loop(), self._lanes.setdefault(lane, deque())
        called: asyncio.Future[None] = loop.create_future()
        if first:
            waiting.appendleft(called)
        else:
            waiting.append(called)
        timer = loop.call_later(seconds, _call, called)
        try:
            await called
        finally:
            timer.cancel()
            if called in waiting:  # nobody has called it
                waiting.remove(called)
            if not waiting and self._lanes.get(lane) is waiting:
                del self._lanes[lane]

    def call(self, lane: str) -> None:
        """Call the one that has waited longest, where there is one."""
        waiting = self._lanes.get(lane)
        while waiting:
            if _call(waiting.popleft()):
                break


def _call(waiter: asyncio.Future[None]) -> bool:
    if waiter.done():
        return False
    waiter.set_result(None)
    return True

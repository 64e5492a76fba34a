"""Those that stay before an endpoint's gate for a moment: the next is called when one leaves, or at its time."""

from __future__ import annotations

import asyncio
from collections import deque


class Line:
    """The lines before all lanes. Who is called asks the gate again: being called promises nothing."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lanes: dict[str, deque[asyncio.Event]] = {}

    async def wait(self, lane: str, seconds: float, *, first: bool = False) -> None:
        """Wait to be called, or for so many seconds; `first` of all, or else last."""
        called, waiting = asyncio.Event(), self._lanes.setdefault(lane, deque())
        if first:
            waiting.appendleft(called)
        else:
            waiting.append(called)
        timer = asyncio.get_running_loop().call_later(seconds, called.set)
        try:
            await called.wait()
        finally:
            timer.cancel()
            # One that was called is out of the line; the others are not far from its head.
            if called in waiting:
                waiting.remove(called)
            if not waiting and self._lanes.get(lane) is waiting:
                del self._lanes[lane]

    def call(self, lane: str) -> None:
        """Call the one that has waited longest, where there is one."""
        waiting = self._lanes.get(lane)
        if waiting:
            waiting.popleft().set()

"""What a fetch on the broker in memory waits for: news, or the end of its time."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes the one who waits at it. Rung while nobody waits, it is not heard: whoever waits has looked just before."""

    def __init__(self) -> None:
        """Let nobody wait yet."""
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Let who waits go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, deadline: float) -> None:
        """Wait until it rings, at the latest until `deadline` in the loop's seconds."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_at(deadline, self.ring)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

"""A question that many have at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Asks once for all who want to know: each gets an answer that was begun after it asked, or how that failed.

    So whoever asks waits for two answers at most, however many ask of somebody who does not answer. All who wait for
    one go on at the same moment, so that what was one batch before is one batch again.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        """Ask by `ask`; nothing is asked yet."""
        self._ask = ask
        self._next: asyncio.Task[T] | None = None
        self._last: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """Get the answer. Raises what asking raises."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._after(self._last))
            self._next.add_done_callback(_heard)
        return await asyncio.shield(self._next)

    async def drain(self) -> None:
        """Wait for what is being asked."""
        if under_way := {one for one in (self._next, self._last) if one and not one.done()}:
            await asyncio.wait(under_way)

    async def _after(self, last: asyncio.Task[T] | None) -> T:
        """Ask, once the question before is answered; from the moment it is asked, who comes waits for the next."""
        if last and not last.done():
            await asyncio.wait({last})
        self._last, self._next = self._next, None
        return await self._ask()


def _heard(asked: asyncio.Task[Any]) -> None:
    """Take note of a failure that those who wait are told of, if there are any left."""
    if not asked.cancelled():
        asked.exception()

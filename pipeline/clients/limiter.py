"""The hard cap on calls in flight, shared by all stages of a process.

A stage's own concurrency is below the cap, so nobody waits here in normal operation; what this file holds is that no
mistake above it, such as two stages on one model, can exceed what was allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from pipeline.core.errors import Defer
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel, Clock

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long a call is deferred that found no free slot within its time."""


class Slots:
    """At most `limit` calls of any kind in flight; more wait in order, as long as their own time allows."""

    def __init__(self, limit: int, clock: Clock) -> None:
        """Have `limit` slots. Raises ValueError for less than 1."""
        if limit < 1:
            raise ValueError(f"the cap on calls in flight must be at least 1, not {limit}")
        self._slots = asyncio.Semaphore(limit)
        self._limit = limit
        self._clock = clock

    async def run(self, seconds: float, call: Callable[[float], Awaitable[T]]) -> T:
        """Make a call in a slot, told what is left of its `seconds`. Raises Defer where they pass before its turn."""
        asked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            reason = f"all {self._limit} slots for calls stayed taken for {seconds:.3g} s"
            raise Defer(reason, until=self._clock() + BUSY_SECONDS, code="no_slot") from None
        try:
            waited = asyncio.get_running_loop().time() - asked
            return await call(max(seconds - waited, min(1.0, seconds)))
        finally:
            self._slots.release()


class LimitedModel:
    """A chat model with at most `limit` calls in flight; more wait in order, as long as their own time allows."""

    def __init__(self, model: ChatModel, limit: int, clock: Clock) -> None:
        """Limit `model`. Raises ValueError for a limit below 1."""
        self._model = model
        self._slots = Slots(limit, clock)

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call within the cap. Raises Defer where its time passes before its turn comes."""
        return await self._slots.run(call.timeout, lambda seconds: self._model.complete(replace(call, timeout=seconds)))

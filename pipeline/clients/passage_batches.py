"""Gathering: requests of concurrent calls become few, and each call still gets its own answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

MOST = 128
"""What closes a batch, in points; with the last item that is added, a request has 64 to 256 where there are as many."""
SECONDS = 0.02
"""The longest that anything waits for others while a request is under way."""


class Batches(Generic[A, R]):
    """Sends what concurrent callers hand in, together: at once while nothing is under way, else when `MOST` points are
    waiting, or 20 ms have passed, or what was under way is done.

    A batch that fails fails its callers and nobody else; where the request itself was refused (`refused`), each part is
    sent once more by itself, so that one that is wrong does not spoil the others. A caller that gives up before its
    batch is sent takes its part out; one that gives up later leaves it to be done.
    """

    def __init__(
        self,
        send: Callable[[Sequence[A]], Awaitable[Sequence[R]]],
        weigh: Callable[[A], int],
        refused: Callable[[Exception], bool],
    ) -> None:
        """Send by `send`, which answers each item in order. `weigh` tells how many points an item is."""
        self._send = send
        self._weigh = weigh
        self._refused = refused
        self._waiting: deque[tuple[A, asyncio.Future[R]]] = deque()
        self._weight = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.Handle | None = None

    async def add(self, item: A) -> R:
        """Hand in an item and wait for its answer. Raises what `send` raises."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._weight += self._weigh(item)
        self._schedule()
        answer: R = await future
        return answer

    async def drain(self) -> None:
        """Wait for what is under way; what still waits is dropped with its callers."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _schedule(self) -> None:
        """See to it that what waits is sent in time; callers of the same moment are let in first."""
        loop = asyncio.get_running_loop()
        if self._weight >= MOST:
            self._flush()
        elif self._waiting and self._alarm is None:
            self._alarm = loop.call_later(SECONDS, self._flush) if self._under_way else loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        batch = self._take()
        if batch:
            task = asyncio.create_task(self._deliver(batch))
            self._under_way.add(task)
            task.add_done_callback(self._done)
        if self._waiting:
            self._schedule()

    def _take(self) -> list[tuple[A, asyncio.Future[R]]]:
        batch, weight = list[tuple[A, asyncio.Future[R]]](), 0
        while self._waiting and weight < MOST:
            item, future = self._waiting.popleft()
            self._weight -= self._weigh(item)
            if not future.done():
                weight += self._weigh(item)
                batch.append((item, future))
        return batch

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not self._under_way:
            self._flush()

    async def _deliver(self, batch: Sequence[tuple[A, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and self._refused(error):
                for part in batch:
                    await self._deliver([part])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


class Turns:
    """One call at a time for each name. Of those that wait, the highest goes first; those without a height go last.

    So of several versions that come at once, the newest is written and the others find that they are late.
    """

    def __init__(self) -> None:
        """Begin with nobody."""
        self._waiting: dict[Hashable, list[tuple[int | None, asyncio.Future[None]]]] = {}

    @asynccontextmanager
    async def turn(self, name: Hashable, height: int | None) -> AsyncIterator[None]:
        """Wait for the turn of a call under `name`."""
        queue = self._waiting.get(name)
        if queue is None:
            self._waiting[name] = []
        else:
            await self._wait(name, height, queue)
        try:
            yield
        finally:
            self._next(name)

    async def _wait(
        self, name: Hashable, height: int | None, queue: list[tuple[int | None, asyncio.Future[None]]]
    ) -> None:
        mine = asyncio.get_running_loop().create_future()
        queue.append((height, mine))
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn had come already
                self._next(name)
            raise

    def _next(self, name: Hashable) -> None:
        queue = self._waiting[name]
        queue[:] = [one for one in queue if not one[1].done()]
        if not queue:
            del self._waiting[name]
            return
        best = max(range(len(queue)), key=lambda place: (queue[place][0] is not None, queue[place][0] or 0, -place))
        queue.pop(best)[1].set_result(None)

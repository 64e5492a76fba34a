"""Which item is handled next: feeds share the slots by weight, keys keep their order, workers wait without polling."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.runtime.gatekeeper import Gatekeeper, Open
from pipeline.runtime.work import Feed, Item

# Workers that are woken and have not begun. Who begins and leaves work behind wakes two more, so all are awake within
# a few turns of the loop, and quick handlers, which leave none, are not slowed down by a wake-up for each record.
WAKES = 2


class Dispatch:
    """Hands ready items to workers. Smooth weighted round robin over the feeds that have work; no slot idles."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        """Serve `feeds`. `starved` is called when work arrives and no worker waits for it."""
        self.gate: Gatekeeper = Open()
        self.starved: Callable[[], None] = lambda: None
        self._feeds = feeds
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._woken = 0

    def push(self, item: Item) -> None:
        """Add an item whose turn has come in its key; after `close` it is left where it is, unsettled."""
        if self._closed or (self.gate.alert and self.gate.stops(item)):
            return
        feed = item.part.feed
        feed.ready.append(item)
        feed.window.ready += 1
        if self._woken < WAKES:
            self._wake()

    def withdraw(self, item: Item) -> None:
        """Take an item back that no worker has taken; others are passed over."""
        feed = item.part.feed
        if item in feed.ready:
            feed.ready.remove(item)
            feed.window.ready -= 1

    async def take(self) -> Item:
        """Wait for the next item that is still ours to handle."""
        while True:
            item = self._pop()
            if item is None:
                await self._sleep()
            elif item.ours and not item.part.leaving:
                self._wake_more()
                return item

    def close(self) -> None:
        """Hand out nothing any more."""
        self._closed = True
        for feed in self._feeds:
            feed.ready.clear()
            feed.window.ready = 0

    def _pop(self) -> Item | None:
        busy = [feed for feed in self._feeds if feed.ready]
        if not busy:
            return None
        feed = busy[0] if len(busy) == 1 else _fairest(busy)
        feed.window.ready -= 1
        return feed.ready.popleft()

    async def _sleep(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
            self._woken -= 1
        except asyncio.CancelledError:
            # The wake-up this worker may have had belongs to another one.
            self._woken -= future.done() and not future.cancelled()
            self._wake()
            raise

    def _wake_more(self) -> None:
        """Wake others for what is left."""
        left = sum(feed.window.ready for feed in self._feeds)
        while self._woken < min(left, WAKES) and self._wake():
            pass

    def _wake(self) -> bool:
        """Wake a worker, or ask for one more where none sleeps; False then."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._woken += 1
                return True
        if not self._closed:
            self.starved()
        return False


def _fairest(busy: Sequence[Feed]) -> Feed:
    for feed in busy:
        feed.credit += feed.weight
    best = max(busy, key=lambda feed: feed.credit)
    best.credit -= sum(feed.weight for feed in busy)
    return best

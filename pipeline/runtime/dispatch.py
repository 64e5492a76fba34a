"""Which item is handled next: feeds share the slots by weight, keys keep their order, workers wait without polling."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.runtime.gatekeeper import Gatekeeper, Open
from pipeline.runtime.work import Feed, Item


class Dispatch:
    """Hands ready items to workers. Smooth weighted round robin over the feeds that have work; no slot idles."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        """Serve `feeds`. `starved` is called when work arrives and no worker waits for it."""
        self.gate: Gatekeeper = Open()
        self.starved: Callable[[], None] = lambda: None
        self._feeds = feeds
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def push(self, item: Item) -> None:
        """Add an item whose turn has come in its key; after `close` it is left where it is, unsettled."""
        if self._closed or (self.gate.alert and self.gate.stops(item)):
            return
        feed = item.part.feed
        feed.ready.append(item)
        feed.window.ready += 1
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
            elif item.part.alive:
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
        except asyncio.CancelledError:
            # The wake-up this worker may have had belongs to another one.
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        if not self._closed:
            self.starved()


def _fairest(busy: Sequence[Feed]) -> Feed:
    for feed in busy:
        feed.credit += feed.weight
    best = max(busy, key=lambda feed: feed.credit)
    best.credit -= sum(feed.weight for feed in busy)
    return best

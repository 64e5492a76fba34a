"""The index as stages know it: both ports on the collection that is live, whichever that is.

A search looks at the alias first, and is then of one collection. What a writer was told is in the index only once a
look that began after the write shows the same collection, and that nothing is closing; else it is written once more,
where the alias names another. So whatever was said to be in the index before a search began is found by it.
Who asks at once shares a look: it costs one small request for each batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pipeline.clients import passage_points as points
from pipeline.clients.passage_alias import Aliases, Live
from pipeline.clients.passage_collection import Collection
from pipeline.clients.passage_entries import PassageEntries
from pipeline.clients.passage_search import PassageFinder
from pipeline.clients.passage_store import PassageKeeper
from pipeline.clients.qdrant_failures import translated
from pipeline.core.errors import Defer, Halt
from pipeline.core.index_ports import Chunk, Indexed, Search
from pipeline.core.payloads import Document, Passage
from pipeline.telemetry import logs

A = TypeVar("A")

ROUNDS = 12
"""How many switches a call goes along with; more within one call are a mistake somewhere."""
CLOSING_SECONDS = 20.0
"""How long a write waits in place for a switch; then it is deferred."""
PAUSE_SECONDS = 0.25
"""How long it waits before it looks again."""
GONE = "index_gone"


class Passages(PassageFinder, PassageKeeper, PassageEntries):
    """Fills both ports of the index on one collection, and tells what it holds."""

    def __init__(self, place: Collection, bm25: points.Embedder | None = None) -> None:
        """Use a collection; see `Collection.prepare`."""
        bm25 = bm25 or points.Embedder()
        PassageFinder.__init__(self, place, bm25)
        PassageKeeper.__init__(self, place, bm25)
        PassageEntries.__init__(self, place)
        self.place = place


class LivePassages:
    """Fills both ports of the index on the collection that an alias names, the first of which it makes.

    A reader stays with the collection it has where the next one is made by another embedding model: that one is whole,
    only no longer brought up to date. A writer raises Halt there.
    """

    def __init__(self, place: Collection, bm25: points.Embedder | None = None) -> None:
        """Use the alias that is the name of `place`."""
        self.aliases = Aliases(place)
        self._bm25 = bm25 or points.Embedder()
        self._opened: dict[str, Passages] = {}
        self._refused: dict[str, Halt] = {}
        self._read: Passages | None = None
        self._written: Passages | None = None
        self._opening = asyncio.Lock()

    # ---- reading -----------------------------------------------------------------------------------------------------
    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find passages; see the port."""
        for _ in range(ROUNDS):
            index = await self.current()
            try:
                return await index.search(wanted)
            except Halt as gone:
                if gone.code != GONE or await self.current() is index:
                    raise self._refused.get(self.aliases.seen.collection or "", gone) from None
        raise _restless()

    async def current(self) -> Passages:
        """Return the collection that is live, or the one before where that is made by another model."""
        live = await self._look()
        if self._read and live.collection in (None, self._read.place.name):
            return self._read
        try:
            self._read = await self._open(live)
        except Halt as refused:
            if self._read is None or refused.code != "index_refused":
                raise
        return self._read

    # ---- writing -----------------------------------------------------------------------------------------------------
    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Make `chunks` the whole of the document; see the port."""
        return await self._write(lambda index: index.replace(document, chunks))

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port."""
        return await self._write(lambda index: index.keep(document))

    async def remove(self, document: Document) -> Indexed:
        """Remove the document; see the port."""
        return await self._write(lambda index: index.remove(document))

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove all documents of a source that are not newer; see the port."""
        return await self._write(lambda index: index.empty(source, version))

    async def forget(self, before_ms: int) -> int:
        """Remove the marks of documents that were removed before a time; see `PassageKeeper`."""
        return await self._write(lambda index: index.forget(before_ms))

    async def drain(self) -> None:
        """Wait for the requests under way; to be called before the client is closed."""
        await self.aliases.drain()
        for index in self._opened.values():
            await index.drain()

    async def _write(self, call: Callable[[Passages], Awaitable[A]]) -> A:
        index = await self._writer()
        for _ in range(ROUNDS):
            try:
                done = await call(index)
            except Halt as gone:
                if gone.code != GONE or (await self._look()).collection in (None, index.place.name):
                    raise
            else:
                live = await self._open_look()
                if live.collection == index.place.name:
                    return done
                if live.collection is None:
                    raise Halt(f"the alias {self.aliases.alias!r} of the index was taken away", code=GONE)
            index = self._written = await self._open(self.aliases.seen)
        raise _restless()

    async def _writer(self) -> Passages:
        if self._written is None or self.aliases.seen.closing:
            self._written = await self._open(await self._open_look())
        return self._written

    async def _open_look(self) -> Live:
        """Look until nothing is closing. Raises Defer after a while."""
        clock = self.aliases.place.clock
        late = clock() + CLOSING_SECONDS
        while (live := await self._look()).closing:
            if clock() >= late:
                reason = (
                    "the index is being switched by `pipeline index rebuild`; if none is running, run it again, or end "
                    "it with --abort"
                )
                raise Defer(reason, until=clock() + 5.0, code="index_closing")
            await asyncio.sleep(PAUSE_SECONDS)
        return live

    # ---- collections -------------------------------------------------------------------------------------------------
    async def _look(self) -> Live:
        with translated(self.aliases.place.clock):
            live = await self.aliases.look()
            used = self._read or self._written
            return await self.aliases.first() if live.collection is None and used is None else live

    async def _open(self, live: Live) -> Passages:
        """Open what is live, once. Raises Halt where it is made by another model than ours."""
        name = live.collection or ""
        async with self._opening:
            if name in self._refused:
                raise self._refused[name]
            if name not in self._opened:
                place = self.aliases.place
                try:
                    with translated(place.clock):
                        await place.measure()
                        opened = Passages(place.named(name), self._bm25)
                        await opened.place.prepare()
                except Halt as refused:
                    if refused.code == "index_refused":
                        self._refuse(name, refused)
                    raise
                self._opened[name] = opened
            return self._opened[name]

    def _refuse(self, name: str, refused: Halt) -> None:
        self._refused[name] = refused
        if self._read:
            logs.get().warning(
                f"searches stay with {self._read.place.name!r}, which is no longer brought up to date: "
                f"{refused.reason}; start this process again to follow",
                action="index_stays",
            )


def _restless() -> Halt:
    return Halt("the index is switched from one collection to another without end", code="index_restless")

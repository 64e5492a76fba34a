"""Writing the index: the port `PassageStore` on Qdrant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection
from pipeline.clients.qdrant_failures import translated
from pipeline.core.payloads import Document
from pipeline.core.ports import Chunk, Indexed

BATCH = 128
"""Points per request; the server's own advice is 64 to 256."""


class PassageKeeper:
    """Keeps documents in a collection."""

    def __init__(self, collection: Collection, bm25: points.Embedder) -> None:
        """Write to `collection`."""
        self._collection = collection
        self._bm25 = bm25
        self._documents: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Put a document's chunks in place of its earlier ones; see the port.

        New chunks are written before stale ones go, so that a search in between finds some state of the document.
        """
        made = points.make_points(document, chunks, self._bm25)
        with translated(self._collection.clock):
            async with self._sole(document):
                if await self._holds(points.newer(document)):
                    return Indexed(stale=True)
                for start in range(0, len(made), BATCH):
                    await self._upsert(document, made[start : start + BATCH])
                await self._delete(points.stale(document, len(made)))
        return Indexed(written=len(made))

    async def remove(self, document: Document) -> Indexed:
        """Remove a document's chunks; see the port."""
        with translated(self._collection.clock):
            async with self._sole(document):
                if await self._holds(points.newer(document)):
                    return Indexed(stale=True)
                await self._delete(points.up_to(document))
        return Indexed()

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port."""
        raise NotImplementedError(document.id)

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove a source's documents; see the port."""
        raise NotImplementedError(source, version)

    @asynccontextmanager
    async def _sole(self, document: Document) -> AsyncIterator[None]:
        """Keep two versions of one document from being written at once; their keys may differ, so their order does."""
        await self._collection.prepare()
        name = (document.source, document.id)
        lock = self._documents.get(name)
        if lock is None:
            lock = self._documents[name] = asyncio.Lock()
        async with lock:
            yield

    async def _holds(self, wanted: models.Filter) -> bool:
        place = self._collection
        counted = await place.run(place.client.count(place.name, count_filter=wanted, exact=True))
        return counted.count > 0

    async def _upsert(self, document: Document, batch: list[models.PointStruct]) -> None:
        # The condition fences a newer version that another process wrote since we looked.
        place, fence = self._collection, points.up_to(document)
        await place.run(place.client.upsert(place.name, batch, wait=True, update_filter=fence))

    async def _delete(self, unwanted: models.Filter) -> None:
        place, selector = self._collection, models.FilterSelector(filter=unwanted)
        await place.run(place.client.delete(place.name, points_selector=selector, wait=True))

"""A collection in memory that holds some documents, embedded by their words and, if wanted, by their meaning."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection as Place
from pipeline.clients.qdrant import Passages
from pipeline.core.index_ports import Embedder
from tests.contracts.passage_search_contract import Held

NAME = "passages"
BM25 = points.Embedder()


async def here(work: Coroutine[Any, Any, Any]) -> Any:
    """Run the client's work in this thread."""
    return await work


@asynccontextmanager
async def filled(documents: Held, dense: Embedder | None = None) -> AsyncIterator[Place]:
    """Fill a collection in memory, with dense vectors where there is an embedder."""
    client = AsyncQdrantClient(":memory:")
    place = Place(client, NAME, here, time.time, dense, indexed=False)
    index = Passages(place)
    try:
        for document, chunks in documents:
            await index.replace(document, chunks)
        yield place
    finally:
        await index.drain()
        await client.close()

"""A collection in memory that holds some documents, embedded by their words and, if wanted, by their meaning."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection as Place
from pipeline.clients.passage_query import DENSE, FIELDS, OVERLAP
from pipeline.core.ports import Embedder
from tests.contracts.passage_search_contract import Held

NAME = "passages"
BM25 = points.Embedder()


@asynccontextmanager
async def filled(documents: Held, dense: Embedder | None = None) -> AsyncIterator[Place]:
    """Fill a collection in memory, with dense vectors where there is an embedder."""
    client = AsyncQdrantClient(":memory:")
    size = len((await dense.embed(["size"])).vectors[0]) if dense else 0
    vectors = {DENSE: models.VectorParams(size=size, distance=models.Distance.COSINE)} if dense else {}
    sparse = {points.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    await client.create_collection(NAME, vectors_config=vectors, sparse_vectors_config=sparse)
    for document, chunks in documents:
        made = points.make_points(document, chunks, BM25)
        embedded = await dense.embed([chunk.text for chunk in chunks]) if dense else None
        for number, point in enumerate(made):
            point.payload = {**(point.payload or {}), FIELDS: document.fields, OVERLAP: chunks[number].overlap}
            if embedded:
                point.vector = {**dict(point.vector), DENSE: list(embedded.vectors[number])}  # type: ignore[arg-type]  # made by name
        await client.upsert(NAME, made)

    async def here(work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    try:
        yield Place(client, NAME, here, time.time, indexed=False)
    finally:
        await client.close()

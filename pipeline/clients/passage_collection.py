"""The collection of the index: made at the first call that needs it, by whichever process comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from pipeline.clients import passage_points as points
from pipeline.core.ports import Clock

T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class Run(Protocol):
    """Where the client's coroutines run."""

    async def __call__(self, work: Work[T]) -> T:
        """Await `work` there."""
        ...


class Collection:
    """One collection on a client that somebody else closes; `run` is where the client's coroutines run."""

    def __init__(self, client: AsyncQdrantClient, name: str, run: Run, clock: Clock, *, indexed: bool) -> None:
        """Use the collection `name`, made at the first call; `indexed` makes its payload indexes, too."""
        self.client = client
        self.name = name
        self.run = run
        self.clock = clock
        self._indexed = indexed
        self._ready = False
        self._preparing = asyncio.Lock()

    async def prepare(self) -> None:
        """Make the collection and its indexes, once; a server that is away at the start is asked again later."""
        if self._ready:
            return
        async with self._preparing:
            if not self._ready:
                await self._make_collection()
                self._ready = True

    async def _make_collection(self) -> None:
        if not await self.run(self.client.collection_exists(self.name)):
            sparse = {points.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
            try:
                await self.run(
                    self.client.create_collection(self.name, vectors_config={}, sparse_vectors_config=sparse)
                )
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another process has just made it
                    raise
        for field, schema in points.INDEXES.items() if self._indexed else ():
            await self.run(self.client.create_payload_index(self.name, field, schema, wait=True))

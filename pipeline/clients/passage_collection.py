"""The collection of the index: made at the first call that needs it, by whichever process comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from pipeline.clients import passage_points as points
from pipeline.core.errors import Halt, Retry
from pipeline.core.index_ports import Embedder
from pipeline.core.ports import Clock

T = TypeVar("T")
Work = Coroutine[Any, Any, T]

PROBE = "dimension"
"""The text by which the length of an embedder's vectors is found out, once in a process."""
ABOUT = "passages"
"""Under this name the collection's metadata tell by what it was made."""


class Run(Protocol):
    """Where the client's coroutines run."""

    async def __call__(self, work: Work[T]) -> T:
        """Await `work` there."""
        ...


class Collection:
    """One collection on a client that somebody else closes; `run` is where the client's coroutines run.

    `embedder` makes the dense vectors, of `dimension` numbers each, which is known once the collection is prepared.
    `notes` go into the metadata of one that is made.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        name: str,
        run: Run,
        clock: Clock,
        embedder: Embedder | None = None,
        *,
        indexed: bool,
    ) -> None:
        """Use the collection `name`, made at the first call; `indexed`: on a server, with its payload indexes."""
        self.client = client
        self.name = name
        self.run = run
        self.clock = clock
        self.embedder = embedder
        self.dimension = 0
        self.remote = indexed
        self.notes: Mapping[str, Any] = {}
        self._makes = True
        self._ready = False
        self._preparing = asyncio.Lock()

    @property
    def embedded_by(self) -> str:
        """What makes the vectors: part of every content hash."""
        return f"{points.BM25_NAME} {self.embedder.model}" if self.embedder else points.BM25_NAME

    def named(self, name: str, *, makes: bool = False, known: bool = False) -> Collection:
        """Return another collection of the same client and embedder; only one that `makes` is ever made.

        Of one that is `known` nothing is checked: what it holds is read as it is.
        """
        other = Collection(self.client, name, self.run, self.clock, self.embedder, indexed=self.remote)
        other.dimension, other._makes, other._ready = self.dimension, makes, known
        return other

    async def prepare(self) -> None:
        """Make the collection and its indexes, once; a server that is away at the start is asked again later.

        Raises Halt for a collection that was made by another embedding model, or with vectors of another length.
        """
        if self._ready:
            return
        async with self._preparing:
            if not self._ready:
                await self.measure()
                await self._make_collection()
                self._ready = True

    async def count(self, wanted: models.Filter | None) -> int:
        """Count points exactly; None: all of them."""
        return (await self.run(self.client.count(self.name, count_filter=wanted, exact=True))).count

    async def measure(self) -> None:
        """Find out how long the embedder's vectors are."""
        if self.embedder is None or self.dimension:
            return
        answer = await self.embedder.embed([PROBE])
        if len(answer.vectors) != 1 or not answer.vectors[0]:
            raise Retry("the embedding model gave no vector for one text", code="embedding_error")
        self.dimension = len(answer.vectors[0])

    async def _make_collection(self) -> None:
        if self._makes and not await self.run(self.client.collection_exists(self.name)):
            try:
                await self.run(self._creation())
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another process has just made it
                    raise
        info = await self.run(self.client.get_collection(self.name))
        self._check((info.config.metadata or {}).get(ABOUT))
        for name, schema in points.INDEXES.items() if self.remote else ():
            await self.run(self.client.create_payload_index(self.name, name, schema, wait=True))

    def _creation(self) -> Work[bool]:
        dense = models.VectorParams(size=self.dimension, distance=models.Distance.COSINE)
        return self.client.create_collection(
            self.name,
            vectors_config={points.DENSE: dense} if self.embedder else {},
            sparse_vectors_config={points.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={ABOUT: self.about(), **self.notes},
        )

    def about(self) -> Mapping[str, Any]:
        """Say by what the collection is made, as its metadata have it; the dimension is known once it is prepared."""
        model = self.embedder.model if self.embedder else ""
        return {"format": points.FORMAT, "model": model, "dimension": self.dimension}

    def _check(self, about: Mapping[str, Any] | None) -> None:
        """Refuse a collection whose vectors do not compare with ours, or whose points are not as ours are."""
        if about == self.about():
            return
        if about is None or about.get("format") != points.FORMAT:
            reason = (
                f"the collection {self.name!r} does not say by what it was made: it is of an older release, or of a "
                "Qdrant older than 1.16; make it anew with `pipeline index rebuild`"
            )
        else:
            reason = (
                f"the collection {self.name!r} was made {_made_with(about)}, and this process is to work "
                f"{_made_with(self.about())}; start it again with EMBEDDING_MODEL={about.get('model', '')}, or make "
                "the index anew with `pipeline index rebuild`"
            )
        raise Halt(reason, code="index_refused")


def _made_with(about: Mapping[str, Any]) -> str:
    if not about.get("model"):
        return "without an embedding model"
    return f"with the embedding model {about['model']!r} ({about.get('dimension')} dimensions)"

"""The vector index: Qdrant, at a URL or embedded in this process, behind one code path.

The embedded one computes in the calling thread and belongs to one process: it runs in a thread of its own, which also
owns its SQLite files, and a lock on its folder tells a second process so.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar
from weakref import WeakValueDictionary

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from pipeline.clients import passage_points as points
from pipeline.clients.qdrant_failures import translated
from pipeline.core.errors import ConfigurationError, Retry
from pipeline.core.payloads import Document, Passage
from pipeline.core.ports import Chunk, Clock, Indexed, Search

T = TypeVar("T")
Work = Coroutine[Any, Any, T]

BATCH = 128
"""Points per request; the server's own advice is 64 to 256."""
TIMEOUT_SECONDS = 20
"""The longest request to a server."""


class Run(Protocol):
    """Where the client's coroutines run."""

    async def __call__(self, work: Work[T]) -> T:
        """Await `work` there."""
        ...


class Passages:
    """Fills both ports of the index, search and store, on a client that somebody else closes."""

    def __init__(self, client: AsyncQdrantClient, collection: str, run: Run, clock: Clock, *, indexed: bool) -> None:
        """Use `collection`, made at the first call; `indexed` makes its payload indexes, too."""
        self._client = client
        self._collection = collection
        self._run = run
        self._clock = clock
        self._indexed = indexed
        self._embedder = points.Embedder()
        self._ready = False
        self._preparing = asyncio.Lock()
        self._documents: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find passages; see the port."""
        query = self._embedder.query(wanted.text)
        if query is None:
            return ()
        with translated(self._clock):
            await self._prepare()
            found = await self._run(
                self._client.query_points(
                    self._collection,
                    query=query,
                    using=points.VECTOR,
                    limit=wanted.limit,
                    query_filter=points.visible_to(wanted.tenant, wanted.filters),
                    with_payload=True,
                )
            )
        try:
            return tuple(map(points.make_passage, found.points))
        except ValueError as error:
            raise Retry(f"the index holds a point that is no passage: {error}", code="index_error") from error

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Put a document's chunks in place of its earlier ones; see the port.

        New chunks are written before stale ones go, so that a search in between finds some state of the document.
        """
        made = points.make_points(document, chunks, self._embedder)
        with translated(self._clock):
            async with self._sole(document):
                if await self._holds(points.newer(document)):
                    return Indexed(stale=True)
                for start in range(0, len(made), BATCH):
                    await self._upsert(document, made[start : start + BATCH])
                await self._delete(points.stale(document, len(made)))
        return Indexed(written=len(made))

    async def remove(self, document: Document) -> Indexed:
        """Remove a document's chunks; see the port."""
        with translated(self._clock):
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
        await self._prepare()
        name = (document.source, document.id)
        lock = self._documents.get(name)
        if lock is None:
            lock = self._documents[name] = asyncio.Lock()
        async with lock:
            yield

    async def _holds(self, wanted: models.Filter) -> bool:
        counted = await self._run(self._client.count(self._collection, count_filter=wanted, exact=True))
        return counted.count > 0

    async def _upsert(self, document: Document, batch: list[models.PointStruct]) -> None:
        # The condition fences a newer version that another process wrote since we looked.
        await self._run(self._client.upsert(self._collection, batch, wait=True, update_filter=points.up_to(document)))

    async def _delete(self, unwanted: models.Filter) -> None:
        selector = models.FilterSelector(filter=unwanted)
        await self._run(self._client.delete(self._collection, points_selector=selector, wait=True))

    async def _prepare(self) -> None:
        """Make the collection and its indexes, once; a server that is away at the start is asked again later."""
        if self._ready:
            return
        async with self._preparing:
            if not self._ready:
                await self._make_collection()
                self._ready = True

    async def _make_collection(self) -> None:
        if not await self._run(self._client.collection_exists(self._collection)):
            sparse = {points.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
            try:
                await self._run(
                    self._client.create_collection(self._collection, vectors_config={}, sparse_vectors_config=sparse)
                )
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another process has just made it
                    raise
        for field, schema in points.INDEXES.items() if self._indexed else ():
            await self._run(self._client.create_payload_index(self._collection, field, schema, wait=True))


@asynccontextmanager
async def open_passages(
    path: Path | None, url: str | None, api_key: str | None, collection: str, clock: Clock
) -> AsyncIterator[Passages]:
    """Open the index at `url`, or else the embedded one in the folder `path`.

    Raises ConfigurationError that names QDRANT_URL where neither can be used; a server that is away is no error yet.
    """
    if url:
        async with _remote(url, api_key) as client:
            yield Passages(client, collection, _here, clock, indexed=True)
    elif path:
        async with _embedded(path) as (client, run):
            yield Passages(client, collection, run, clock, indexed=False)
    else:
        raise ConfigurationError("no vector index: set QDRANT_URL, or PIPELINE_DATA for the embedded one")


@asynccontextmanager
async def _remote(url: str, api_key: str | None) -> AsyncIterator[AsyncQdrantClient]:
    try:
        # As a header, since the parameter warns on stderr of a server that is reached without TLS, as within a cluster.
        headers = {"api-key": api_key} if api_key else None
        client = AsyncQdrantClient(url=url, headers=headers, timeout=TIMEOUT_SECONDS, check_compatibility=False)
    except ValueError as error:
        raise ConfigurationError(f"QDRANT_URL is no address of a Qdrant server: {error}") from None
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _embedded(path: Path) -> AsyncIterator[tuple[AsyncQdrantClient, Run]]:
    with ExitStack() as stack:
        stack.enter_context(await asyncio.to_thread(_owner, path))
        run = OneThread(stack.enter_context(ThreadPoolExecutor(1, "qdrant")))
        client = await run(_open_local(path))
        try:
            yield client, run
        finally:
            await run(client.close())


async def _open_local(path: Path) -> AsyncQdrantClient:
    try:
        return AsyncQdrantClient(path=str(path))
    except RuntimeError as error:
        raise ConfigurationError(f"{error}; set QDRANT_URL to a Qdrant server") from None


def _owner(path: Path) -> TextIO:
    """Lock the folder for this process, until the returned file is closed."""
    path.mkdir(parents=True, exist_ok=True)
    file = (path / "owner").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigurationError(
            f"the embedded vector store in {path} has one owner, and another process is it: run index and retrieve in "
            "one process (pipeline run index retrieve), or set QDRANT_URL to a Qdrant server for all of them"
        ) from None
    return file


async def _here(work: Work[T]) -> T:
    return await work


class OneThread:
    """Runs coroutines of the embedded client in one thread, one after the other."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        """Use a pool of exactly one thread."""
        self._thread = thread

    async def __call__(self, work: Work[T]) -> T:
        """Await `work` in the thread; what has begun there is finished even if the caller gives up."""
        future = self._thread.submit(_finish, work)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():
                work.close()


def _finish(work: Work[T]) -> T:
    """Carry out a coroutine that awaits nothing, as those of the embedded client do."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the embedded client waits for something; it needs an event loop of its own now")

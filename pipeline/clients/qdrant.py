"""The vector index: Qdrant, at a URL or embedded in this process, behind one code path.

The embedded one computes in the calling thread and belongs to one process: it runs in a thread of its own, which also
owns its SQLite files, and a lock on its folder tells a second process so.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from qdrant_client import AsyncQdrantClient

from pipeline.clients.passage_collection import Collection, Run
from pipeline.clients.passage_live import LivePassages, Passages
from pipeline.core import index_ports
from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import Clock

__all__ = ["LivePassages", "Passages", "open_passages"]

T = TypeVar("T")
Work = Coroutine[Any, Any, T]

TIMEOUT_SECONDS = 20
"""The longest request to a server."""


@asynccontextmanager
async def open_passages(
    path: Path | None,
    url: str | None,
    api_key: str | None,
    alias: str,
    clock: Clock,
    embedder: index_ports.Embedder | None = None,
) -> AsyncIterator[LivePassages]:
    """Open the index at `url`, or else the embedded one in the folder `path`; `embedder` adds dense vectors.

    `alias` names the live collection, and the names of all collections begin with it.
    Raises ConfigurationError that names QDRANT_URL where neither can be used; a server that is away is no error yet.
    """
    if url:
        opened = _remote(url, api_key)
    elif path:
        opened = _embedded(path)
    else:
        raise ConfigurationError("no vector index: set QDRANT_URL, or PIPELINE_DATA for the embedded one")
    async with opened as (client, run):
        index = LivePassages(Collection(client, alias, run, clock, embedder, indexed=bool(url)))
        try:
            yield index
        finally:
            await index.drain()


@asynccontextmanager
async def _remote(url: str, api_key: str | None) -> AsyncIterator[tuple[AsyncQdrantClient, Run]]:
    try:
        # As a header, since the parameter warns on stderr of a server that is reached without TLS, as within a cluster.
        headers = {"api-key": api_key} if api_key else None
        client = AsyncQdrantClient(url=url, headers=headers, timeout=TIMEOUT_SECONDS, check_compatibility=False)
    except ValueError as error:
        raise ConfigurationError(f"QDRANT_URL is no address of a Qdrant server: {error}") from None
    try:
        yield client, _here
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

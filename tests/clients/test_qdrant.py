"""Tests of pipeline/clients/qdrant.py: embedded in this process, and over HTTP."""

from __future__ import annotations

import asyncio
import errno
import gc
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, models

from pipeline.clients import passage_points as points
from pipeline.clients.qdrant import LivePassages, OneThread, open_passages
from pipeline.clients.qdrant_failures import outcome_for
from pipeline.core.errors import ConfigurationError, Defer, Halt, Outcome, Retry
from pipeline.core.index_ports import Search
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from tests.clients.qdrant_server import Server, qdrant_server
from tests.contracts.passage_index_contract import OPENING, Index, PassageIndexContract, chunks, document

pytestmark = pytest.mark.local

NAME = "passages"


@asynccontextmanager
async def embedded(path: Path) -> AsyncIterator[LivePassages]:
    """Open the embedded index in a folder."""
    async with open_passages(path, None, None, NAME, time.time) as index:
        yield index


@asynccontextmanager
async def remote(server: Server, key: str | None = None) -> AsyncIterator[LivePassages]:
    """Open the index at a server."""
    async with open_passages(None, server.url, key, NAME, time.time) as index:
        yield index


class TestEmbedded(PassageIndexContract):
    """The embedded index keeps both ports' contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Index]:
        with tempfile.TemporaryDirectory() as folder:
            async with embedded(Path(folder)) as index:
                yield index


class TestOverHttp(PassageIndexContract):
    """The index at a URL keeps both ports' contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Index]:
        async with qdrant_server() as server, remote(server) as index:
            yield index


# ---- embedded --------------------------------------------------------------------------------------------------------
async def test_the_folder_keeps_what_was_stored(tmp_path: Path) -> None:
    """After a restart the passages are still there, also from a path with a space."""
    folder = tmp_path / "a folder" / "index"
    async with embedded(folder) as index:
        await index.replace(document(3), chunks(OPENING))
    async with embedded(folder) as index:
        found = await index.search(Search("acme", "shop opens", 3, {}))
    assert [(passage.text, passage.version) for passage in found] == [(OPENING, 3)]


async def test_a_second_owner_in_this_process_is_refused(tmp_path: Path) -> None:
    """A folder has one owner; the sentence names the way out. When it is closed, it is free again."""
    async with embedded(tmp_path):
        with pytest.raises(ConfigurationError, match="QDRANT_URL"):
            async with embedded(tmp_path):
                pass
    async with embedded(tmp_path) as index:
        assert list(await index.search(Search("acme", "shop", 1, {}))) == []


def _own(path: Path, opened: Event, done: Event) -> None:
    async def own() -> None:
        async with embedded(path) as index:
            await index.replace(document(1), chunks(OPENING))
            opened.set()
            await asyncio.to_thread(done.wait, 30)

    asyncio.run(own())


@pytest.mark.system
async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Two processes on one embedded store would corrupt it: the second one is told to set QDRANT_URL."""
    context = multiprocessing.get_context("spawn")
    opened, done = context.Event(), context.Event()
    owner = context.Process(target=_own, args=(tmp_path, opened, done))
    owner.start()
    try:
        assert await asyncio.to_thread(opened.wait, 30)
        with pytest.raises(ConfigurationError, match="QDRANT_URL"):
            async with embedded(tmp_path):
                pass
    finally:
        done.set()
        await asyncio.to_thread(owner.join, 30)
    assert owner.exitcode == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the library leaves its lock file open when it is refused
async def test_a_folder_held_by_another_program_is_refused(tmp_path: Path) -> None:
    """A program that opened the folder by the library alone is noticed, too."""
    other = AsyncQdrantClient(path=str(tmp_path))
    await _expect_refusal(tmp_path)
    await other.close()
    await asyncio.sleep(0)
    gc.collect()


async def _expect_refusal(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="QDRANT_URL"):
        async with embedded(path):
            pass


async def test_the_loop_is_free_while_the_index_works(tmp_path: Path) -> None:
    """The embedded engine computes in its own thread: meanwhile other tasks go on."""
    async with embedded(tmp_path) as index:
        turns = 0
        writing = asyncio.create_task(index.replace(document(), chunks(*[f"{OPENING} {n}" for n in range(30)])))
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await writing).written
    assert turns > 30


async def test_many_chunks_go_in_batches(tmp_path: Path) -> None:
    """A document of more chunks than a batch is stored whole."""
    async with embedded(tmp_path) as index:
        await index.replace(document(), chunks(*[f"{OPENING} Room {n}." for n in range(140)]))
        found = await index.search(Search("acme", "room 139", 1, {}))
    assert [passage.chunk for passage in found] == [139]


async def test_work_that_was_given_up_before_its_turn_is_dropped() -> None:
    """A cancelled call that still waits for the thread is never begun, and leaves no coroutine behind."""
    begun: list[str] = []

    async def work(name: str) -> str:
        begun.append(name)
        return name

    with ThreadPoolExecutor(1) as pool:
        run, gate = OneThread(pool), asyncio.Event()
        loop = asyncio.get_running_loop()
        pool.submit(lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result())
        waiting = asyncio.create_task(run(work("given up")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        gate.set()
        assert await run(work("next")) == "next"
    assert begun == ["next"]


async def test_a_client_that_would_wait_is_a_bug_that_shows() -> None:
    """The thread has no event loop; a coroutine that needs one fails instead of hanging."""

    async def waits() -> None:
        await asyncio.sleep(0)

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="embedded client waits"):
        await OneThread(pool)(waits())


async def test_neither_folder_nor_url_is_a_mistake() -> None:
    """Without a place there is no index; the variables are named."""
    with pytest.raises(ConfigurationError, match="QDRANT_URL"):
        async with open_passages(None, None, None, NAME, time.time):
            pass


# ---- over HTTP -------------------------------------------------------------------------------------------------------
async def test_the_collection_is_made_once_with_its_indexes() -> None:
    """At the first call the collection and its payload indexes are made, before any point; later calls do not ask."""
    async with qdrant_server() as server, remote(server, "a-key") as index:
        await asyncio.gather(*(index.search(Search("acme", "shop", 1, {})) for _ in range(3)))
        await index.replace(document(), chunks(OPENING))
    made = [asked.body["field_name"] for asked in server.asked if asked.path.endswith("/index")]
    assert set(made) == set(points.INDEXES)
    assert {"tenant", "source", "document", "version", "chunk", "kind"} <= set(made)
    assert [asked.path for asked in server.asked].count(f"/collections/{NAME}-1/exists") == 1
    assert all(asked.headers["api-key"] == "a-key" for asked in server.asked)


async def test_the_tenant_is_part_of_the_query() -> None:
    """The server itself filters by tenant: no other tenant's passage ever leaves it."""
    async with qdrant_server() as server, remote(server) as index:
        await index.search(Search("acme", "shop", 1, {"source": "handbook"}))
    assert server.asked[-1].body["filter"]["must"] == [
        {"key": "tenant", "match": {"value": "acme"}},
        {"key": "source", "match": {"value": "handbook"}},
    ]


NOTHING_YET: list[tuple[int, dict[str, str], bytes]] = [
    (200, {}, b'{"result": %s, "status": "ok", "time": 0}' % told)
    for told in (b'{"aliases": []}', b'{"collections": []}', b'{"collections": []}', b'{"exists": false}')
]
"""What a server answers that has neither aliases nor collections."""


async def test_two_processes_may_make_the_collection_at_once() -> None:
    """Who comes second is told that it exists, and goes on."""
    async with qdrant_server() as server, remote(server) as first, remote(server) as second:
        server.troubles += NOTHING_YET
        await first.replace(document(), chunks(OPENING))
        server.troubles += NOTHING_YET
        assert await second.search(Search("acme", "shop opens", 1, {}))


async def test_a_collection_that_cannot_be_made_is_tried_again() -> None:
    """What goes wrong at the first call is that call's outcome, and the next one makes the collection."""
    async with qdrant_server() as server, remote(server) as index:
        server.troubles += [*NOTHING_YET, (500, {}, b"")]
        with pytest.raises(Retry):
            await index.replace(document(), chunks(OPENING))
        assert not (await index.replace(document(), chunks(OPENING))).stale


@pytest.mark.parametrize(
    "status,headers,body,expected",
    [
        (503, {}, b"", Defer),
        (502, {}, b"<html>", Defer),
        (429, {"Retry-After": "7"}, b"{}", Defer),
        (429, {}, b"{}", Defer),
        (500, {}, b'{"status": {"error": "broken"}}', Retry),
        (400, {}, b'{"status": {"error": "no such vector"}}', Retry),
        (403, {}, b"", Retry),
        (507, {}, b"", Defer),
        (500, {}, b'{"status": {"error": "Service internal error: No space left on device (os error 28)"}}', Defer),
        (500, {}, b'{"status": {"error": "Out of disk space, free up some"}}', Defer),
        (400, {}, b'{"status": {"error": "Wrong input: Vector dimension error: expected dim: 4, got 3"}}', Halt),
        (404, {}, b'{"status": {"error": "Not found: Collection `passages` doesn\'t exist!"}}', Halt),
        (200, {}, b"<html>", Retry),
        (200, {}, b'{"result": "x"}', Retry),
    ],
)
async def test_failures_are_told_apart(
    status: int, headers: dict[str, str], body: bytes, expected: type[Outcome]
) -> None:
    """A server that is away or busy defers; one that errs, or cannot be understood, costs an attempt."""
    async with qdrant_server() as server, remote(server) as index:
        await index.search(Search("acme", "shop", 1, {}))
        server.troubles.append((status, headers, body))
        with pytest.raises(expected):
            await index.search(Search("acme", "shop", 1, {}))
        server.troubles.append((status, headers, body))
        with pytest.raises(expected):
            await index.replace(document(), chunks(OPENING))
        assert not (await index.replace(document(), chunks(OPENING))).stale


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no room"), sqlite3.OperationalError("disk is full")])
def test_a_full_disk_defers(error: Exception) -> None:
    """Room has to be made, which is no record's fault; the embedded store says it in its own ways."""
    outcome = outcome_for(error, 100.0)
    assert isinstance(outcome, Defer)
    assert (outcome.code, outcome.until) == ("index_full", 160.0)


async def test_a_server_that_is_not_there_defers() -> None:
    """Opening does not need the server; calls are deferred until it is back."""
    async with listening(Server(AsyncQdrantClient(":memory:")).application(), 0, "nobody") as port:
        url = f"http://{HOST}:{port}"
    async with open_passages(None, url, None, NAME, time.time) as index:
        with pytest.raises(Defer) as deferred:
            await index.search(Search("acme", "shop", 1, {}))
    assert deferred.value.code == "index_away"
    assert deferred.value.until > time.time()


async def test_a_foreign_point_is_an_error_of_the_index() -> None:
    """A point that somebody else wrote into the collection is named, not shown as a passage."""
    async with qdrant_server() as server, remote(server) as index:
        await index.replace(document(), chunks(OPENING))
        point = models.PointStruct(
            id=1, vector={"bm25": models.SparseVector(indices=[7], values=[1.0])}, payload={"tenant": "acme"}
        )
        await server.engine.upsert(f"{NAME}-1", [point])
        await server.engine.set_payload(NAME, {"text": None}, points=models.Filter())
        with pytest.raises(Retry, match="no passage"):
            await index.search(Search("acme", "shop opens", 5, {}))


async def test_an_address_that_is_none_names_its_variable() -> None:
    """A mistake in QDRANT_URL stops the start with a sentence."""
    with pytest.raises(ConfigurationError, match="QDRANT_URL"):
        async with open_passages(None, "ftp://somewhere", None, NAME, time.time):
            pass

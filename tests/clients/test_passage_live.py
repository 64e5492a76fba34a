"""Tests of pipeline/clients/passage_alias.py and passage_live.py: stages follow the collection that is live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.clients import passage_live
from pipeline.clients.passage_alias import Live, created, deleted, renamed
from pipeline.clients.qdrant import LivePassages, open_passages
from pipeline.core.errors import Defer, Halt
from pipeline.core.index_ports import Search
from tests.clients.passage_world import Letters
from tests.clients.qdrant_server import Server, qdrant_server
from tests.contracts.passage_index_contract import OPENING, RETURNS, chunks, document

pytestmark = pytest.mark.local

ALIAS = "p-passages"
CLOSING = f"{ALIAS}-closing-0123456789ab"
SHOP = Search("acme", "shop opens", 1)


@asynccontextmanager
async def _opened(server: Server, model: str = "") -> AsyncIterator[LivePassages]:
    embedder = Letters(model) if model else None
    async with open_passages(None, server.url, None, ALIAS, time.time, embedder) as index:
        yield index


async def _next(index: LivePassages, number: int = 2) -> None:
    """Make the next collection live, empty as it is."""
    name = index.aliases.name_of(number)
    await index.aliases.place.named(name, makes=True).prepare()
    await index.aliases.update([created(CLOSING, name)])
    await index.aliases.update([renamed(CLOSING, ALIAS)])


@pytest.mark.parametrize("kind", ["embedded", "remote"])
async def test_the_first_start_makes_the_first_collection_and_its_alias(kind: str, tmp_path: Path) -> None:
    """Stages that come at once agree on it; collections of others, and of a prefix that begins alike, are not ours."""
    async with qdrant_server() as server:
        url = server.url if kind == "remote" else None
        async with open_passages(tmp_path, url, None, ALIAS, time.time) as index:
            await asyncio.gather(*(index.replace(document(n), chunks(OPENING)) for n in range(3)), index.search(SHOP))
            assert await index.aliases.look() == Live(f"{ALIAS}-1")
            await index.aliases.place.named(f"{ALIAS}-x-passages-7", makes=True).prepare()
            assert await index.aliases.numbers() == [1]
            if kind == "remote":
                async with _opened(server) as other:
                    assert await other.search(SHOP)


async def test_two_processes_may_make_the_alias_at_once() -> None:
    """Both find nothing, and both make it; neither undoes what the other did, however late it comes."""
    async with qdrant_server() as server, _opened(server) as first, _opened(server) as late:
        await first.replace(document(), chunks(OPENING))
        await _next(first)
        late.aliases.seen = Live(None)  # as it looked before the other began
        assert await late.aliases.first() == Live(f"{ALIAS}-2")


async def test_an_older_layout_is_refused_with_a_cure() -> None:
    """A plain collection that has the alias's name."""
    async with qdrant_server() as server, _opened(server) as index:
        await index.aliases.place.named(ALIAS, makes=True).prepare()
        with pytest.raises(Halt, match="delete that collection"):
            await index.search(SHOP)


async def test_collections_without_an_alias_are_refused() -> None:
    """An alias that somebody deleted is not taken for the beginning of an empty index."""
    async with qdrant_server() as server, _opened(server) as index:
        await index.replace(document(), chunks(OPENING))
        await _next(index)
        await index.aliases.update([deleted(ALIAS)])
        async with _opened(server) as other:
            with pytest.raises(Halt, match=r"p-passages-2.* no alias"):
                await other.search(SHOP)
        with pytest.raises(Halt, match="taken away"):
            await index.replace(document(2), chunks(OPENING))


async def test_writers_and_readers_follow_the_alias() -> None:
    """What was written before a switch is written again where it was not said to be there; searches are of one
    collection."""
    async with qdrant_server() as server, _opened(server) as index, _opened(server) as other:
        await index.replace(document(1), chunks(OPENING))
        assert await other.search(SHOP)
        await _next(index)
        assert list(await other.search(SHOP)) == []
        await index.replace(document(2), chunks(OPENING))
        assert [one.version for one in await other.search(SHOP)] == [2]
        (old,) = (await server.engine.scroll(f"{ALIAS}-1"))[0][:1]
        assert (old.payload or {})["version"] == 2  # it was written there first, as nobody could know


async def test_calls_share_a_look() -> None:
    """Of a batch of writes at once, one request more."""
    async with qdrant_server() as server, _opened(server) as index:
        await index.replace(document(), chunks(OPENING))
        server.asked.clear()
        await asyncio.gather(*(index.replace(document(1, name=f"d{n}"), chunks(OPENING)) for n in range(64)))
        looks = [asked for asked in server.asked if asked.path == "/aliases"]
        assert 1 <= len(looks) <= len(server.asked) // 3


async def test_nothing_is_said_to_be_there_while_a_switch_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write waits, and is deferred where that takes too long; once the alias is gone it goes on."""
    monkeypatch.setattr(passage_live, "CLOSING_SECONDS", 0.05)
    monkeypatch.setattr(passage_live, "PAUSE_SECONDS", 0.01)
    async with qdrant_server() as server, _opened(server) as index:
        await index.replace(document(1), chunks(OPENING))
        await index.aliases.update([created(CLOSING, f"{ALIAS}-1")])
        for _ in range(2):
            with pytest.raises(Defer, match="switched by `pipeline index rebuild`"):
                await index.replace(document(2), chunks(OPENING, RETURNS))
        assert await index.search(SHOP)
        await index.aliases.update([deleted(CLOSING)])
        assert not (await index.replace(document(2), chunks(OPENING, RETURNS))).stale


async def test_a_reader_of_another_model_stays_and_a_writer_halts() -> None:
    """The old collection is whole; once it is dropped, both tell the model that is live now."""
    async with qdrant_server() as server, _opened(server) as index, _opened(server, "letters") as anew:
        await index.replace(document(1), chunks(OPENING))
        assert await index.search(SHOP)
        await _next(anew)
        for _ in range(2):
            assert await index.search(SHOP)
        with pytest.raises(Halt, match="EMBEDDING_MODEL=letters"):
            await index.replace(document(2), chunks(OPENING))
        await server.engine.delete_collection(f"{ALIAS}-1")
        with pytest.raises(Halt, match="EMBEDDING_MODEL=letters"):
            await index.search(SHOP)
        assert list(await anew.search(SHOP)) == []


async def test_a_reader_whose_collection_is_dropped_looks_again() -> None:
    """Dropped between its look and its query: it goes on with what is live."""
    async with qdrant_server() as server, _opened(server) as index, _opened(server) as other:
        await index.replace(document(1), chunks(OPENING))
        assert await other.search(SHOP)
        told = b'{"result": {"aliases": [{"alias_name": "p-passages", "collection_name": "p-passages-1"}]}, "time": 0}'
        await _next(index)
        await index.replace(document(1), chunks(OPENING))
        await server.engine.delete_collection(f"{ALIAS}-1")
        server.troubles.append((200, {}, told))
        assert await other.search(SHOP)


async def test_a_writer_whose_collection_is_dropped_looks_again() -> None:
    """It goes on with what is live; where that is gone itself, it halts."""
    async with qdrant_server() as server, _opened(server) as index, _opened(server) as other:
        await other.replace(document(1), chunks(OPENING))
        await index.search(SHOP)
        await _next(index)
        await server.engine.delete_collection(f"{ALIAS}-1")
        assert (await other.replace(document(1), chunks(OPENING))).written == 1
        await server.engine.delete_collection(f"{ALIAS}-2")
        with pytest.raises(Halt, match="was dropped"):
            await other.replace(document(1), chunks(OPENING))


async def test_who_looks_at_once_shares_a_failure() -> None:
    """A server that is away is asked once for all who wait."""
    async with qdrant_server() as server, _opened(server) as index:
        await index.search(SHOP)
        server.asked.clear()
        server.troubles += [(503, {}, b"")] * 2
        ends = await asyncio.gather(*(index.search(SHOP) for _ in range(20)), return_exceptions=True)
        assert {type(end) for end in ends} <= {Defer, tuple, list}
        assert [asked.path for asked in server.asked].count("/aliases") <= 2

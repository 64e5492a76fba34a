"""Tests of pipeline/clients/passage_rebuild.py and passage_copy.py: the collections, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients import passage_rebuild
from pipeline.clients.passage_alias import Live
from pipeline.clients.passage_copy import PassageCopy
from pipeline.clients.passage_live import Passages
from pipeline.clients.passage_rebuild import Built, Collections, Rebuild
from pipeline.clients.qdrant import LivePassages, open_passages
from pipeline.core.errors import ConfigurationError, Halt
from pipeline.core.payloads import Document
from pipeline.stages.chunking import chunk
from tests.clients.passage_world import Letters
from tests.clients.qdrant_server import Server, qdrant_server
from tests.contracts.passage_index_contract import OPENING, chunks, document

pytestmark = pytest.mark.local

ALIAS = "p-passages"
BOTH = pytest.mark.parametrize("kind", ["embedded", "remote"])
ME, OTHER = "0123456789ab", "ba9876543210"


@asynccontextmanager
async def _opened(server: Server | None, folder: Path | None = None, model: str = "") -> AsyncIterator[LivePassages]:
    embedder, url = Letters(model) if model else None, server.url if server else None
    async with open_passages(folder, url, None, ALIAS, time.time, embedder) as opened:
        yield opened


@asynccontextmanager
async def _filled(kind: str, folder: Path) -> AsyncIterator[LivePassages]:
    """An index with one document."""
    async with qdrant_server() as server, _opened(server if kind == "remote" else None, folder) as opened:
        await opened.replace(document(), chunks(OPENING))
        yield opened


def _say(_: str) -> None:
    """Tell nobody."""


def _whole(version: int, body: str, **more: Any) -> tuple[Document, Sequence[Any]]:
    return document(version, **more), chunk(body)


# ---- the collections -------------------------------------------------------------------------------------------------
@BOTH
async def test_a_rebuild_from_the_beginning_to_the_drop(kind: str, tmp_path: Path) -> None:
    """It makes the next collection, switches by one rename, and keeps the old one until it is dropped."""
    async with _filled(kind, tmp_path) as index:
        rebuild, collections = Rebuild(index.aliases, ME), Collections(index.aliases)
        await rebuild.begin(_say)
        assert rebuild.names == (f"{ALIAS}-1", f"{ALIAS}-2")
        states = [(one.name, one.state, one.points) for one in await collections.listed()]
        assert states == [(f"{ALIAS}-1", "live", 2), (f"{ALIAS}-2", "building", 0)]
        assert await collections.droppable() == []
        await rebuild.close()
        assert (await index.aliases.look()).closing == (f"{ALIAS}-closing-{ME}",)
        await rebuild.switch()
        assert (await index.aliases.look()).collection == f"{ALIAS}-2"
        assert await rebuild.documents() == ({"handbook": (1, 0)}, {})
        assert [one.state for one in await collections.listed()] == ["old", "live"]
        assert await collections.droppable() == [f"{ALIAS}-1"]
        await collections.drop(f"{ALIAS}-1")
        assert await collections.listed() == [Built(f"{ALIAS}-2", "live", "", 0, 0)]


@BOTH
async def test_who_was_aborted_cannot_switch(kind: str, tmp_path: Path) -> None:
    """Nor beat, nor close; what it made is gone, and the live one is what it was."""
    async with _filled(kind, tmp_path) as index:
        rebuild, collections = Rebuild(index.aliases, ME), Collections(index.aliases)
        await rebuild.begin(_say)
        await rebuild.close()
        assert await collections.abort() == [f"{ALIAS}-2"]
        for call in (rebuild.beat, rebuild.close, rebuild.switch):
            with pytest.raises(Halt):
                await call()
        live = await index.aliases.look()
        assert live == Live(f"{ALIAS}-1")
        assert await collections.abort() == []


@BOTH
async def test_who_was_replaced_cannot_switch(kind: str, tmp_path: Path) -> None:
    """Another run goes on with the same collection; the first hears of it at its next beat, and changes nothing."""
    async with _filled(kind, tmp_path) as index:
        index.aliases.place.remote = False  # it was killed long ago: nobody is waited for
        first, second = Rebuild(index.aliases, ME), Rebuild(index.aliases, OTHER)
        await first.begin(_say)
        await first.close()
        await second.begin(_say)
        assert second.resumed
        for call in (first.beat, first.close, first.switch):
            with pytest.raises(Halt, match="another rebuild has taken it over"):
                await call()
        assert not (await index.aliases.look()).closing
        await second.close()
        await second.switch()
        assert (await index.aliases.look()).collection == f"{ALIAS}-2"


async def test_a_second_rebuild_is_refused_while_the_first_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's beat tells; one whose beat stands still was killed, and its collection is gone on with."""
    monkeypatch.setattr(passage_rebuild, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(passage_rebuild, "BEAT_SECONDS", 0.05)
    async with qdrant_server() as server, _opened(server) as index, _opened(server) as other:
        await index.replace(document(), chunks(OPENING))
        first, second = Rebuild(index.aliases, ME), Rebuild(other.aliases, OTHER)
        await first.begin(_say)
        said = list[str]()
        metadata = second.metadata

        async def beating(number: int) -> Any:
            told = await metadata(number)
            await first.beat()
            return told

        monkeypatch.setattr(second, "metadata", beating)
        with pytest.raises(ConfigurationError, match="another `pipeline index rebuild` is making p-passages-2"):
            await second.begin(said.append)
        assert "looking for 0.2 s" in said[0]
        monkeypatch.undo()
        monkeypatch.setattr(passage_rebuild, "WATCH_SECONDS", 0.1)
        monkeypatch.setattr(passage_rebuild, "BEAT_SECONDS", 0.05)
        await second.begin(said.append)
        assert second.resumed


async def test_what_another_model_began_is_made_anew() -> None:
    """Its vectors do not compare with ours."""
    async with qdrant_server() as server, _opened(server) as words, _opened(server, None, "letters") as meaning:
        await words.replace(document(), chunks(OPENING))
        words.aliases.place.remote = meaning.aliases.place.remote = False
        store = await Rebuild(words.aliases, ME).begin(_say)
        await store.replace(document(), chunks(OPENING))
        rebuild = Rebuild(meaning.aliases, OTHER)
        await rebuild.begin(_say)
        assert not rebuild.resumed
        assert (await Collections(words.aliases).listed())[-1] == Built(f"{ALIAS}-2", "building", "letters", 2, 0)


async def test_a_switch_without_an_answer_is_looked_up() -> None:
    """Carried out or not, the alias tells; what was not carried out is tried again."""
    async with qdrant_server() as server, _opened(server) as index:
        await index.replace(document(), chunks(OPENING))
        rebuild = Rebuild(index.aliases, ME)
        await rebuild.begin(_say)
        await rebuild.close()
        server.troubles.append((503, {}, b""))
        with pytest.raises(Exception, match="503"):
            await rebuild.switch()
        await rebuild.switch()
        assert (await index.aliases.look()).collection == f"{ALIAS}-2"


async def test_there_is_nothing_to_rebuild_before_there_is_an_index() -> None:
    """Nor anything to drop."""
    async with qdrant_server() as server, _opened(server) as index:
        for call in (Rebuild(index.aliases, ME).begin(_say), Collections(index.aliases).droppable()):
            with pytest.raises(ConfigurationError, match="there is no index yet"):
                await call


# ---- what is told ----------------------------------------------------------------------------------------------------
async def _told(index: LivePassages, store: Passages) -> list[list[Document]]:
    """Read what the new collection lacks, in pages."""
    copy, told, offset = PassageCopy((await index.current()).place, store.place), list[list[Document]](), None
    while True:
        page = await copy.page(offset)
        told += [list(one) for one in page.lacking]
        if (offset := page.further) is None:
            return told


async def _tell(store: Passages, changes: Sequence[Document]) -> None:
    for one in changes:
        if one.emptied:
            await store.empty(one.source, one.version)
        elif one.deleted:
            await store.remove(one)
        elif one.body_kept:
            assert await store.keep(one) is not None
        else:
            await store.replace(one, chunk(one.body))


@BOTH
async def test_documents_are_told_with_the_ages_of_their_title_and_text(kind: str, tmp_path: Path) -> None:
    """A body as it was, an older text below a newer title, a removal with the text that is withheld, an empty source;
    once they are told, nothing is lacking, and a second rebuild tells the very same."""
    async with _filled(kind, tmp_path) as index:
        body = "# Hours\n\nThe shop opens at nine. " + "It is open all day. " * 120 + "End.\n\n- one\n- two"
        await index.replace(*_whole(3, body, name="whole", fields={"lang": "en"}, committed_at_ms=5))
        await index.replace(*_whole(4, body, name="titled"))
        await index.keep(document(6, name="titled", title="New"))
        await index.replace(*_whole(5, body, name="gone"))
        await index.remove(document(7, name="gone", deleted=True))
        await index.empty("forum", 9)
        told = {}
        for owner in (ME, OTHER):
            rebuild = Rebuild(index.aliases, owner)
            store = await rebuild.begin(_say)
            lacking = await _told(index, store)
            told[owner] = {
                one[0].id: [(c.version, c.title, c.body, c.body_kept, c.deleted) for c in one] for one in lacking
            }
            for changes in lacking:
                await _tell(store, changes)
            assert await _told(index, store) == []
            old, new = await rebuild.documents()
            assert old == new
            await rebuild.close()
            await rebuild.switch()
            if owner == ME:
                moved = document(7, name="taken over", former="gone")
                assert await (await index.current()).keep(moved) is not None
                await index.remove(document(8, name="taken over", deleted=True))
        assert told[ME]["whole"] == [(3, "Hours", body, False, False)]
        assert told[ME]["titled"] == [(4, "New", body, False, False), (6, "New", "", True, False)]
        assert told[ME]["gone"] == [(7, "", body, False, False), (7, "", "", False, True)]
        assert told[ME][""] == [(9, "", "", False, False)]
        assert {name: told[OTHER][name] for name in ("whole", "titled", "")} == {
            name: told[ME][name] for name in ("whole", "titled", "")
        }
        assert told[OTHER]["taken over"][0][2] == body

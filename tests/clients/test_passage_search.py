"""Tests of pipeline/clients/passage_search.py on Qdrant, embedded in this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection as Place
from pipeline.clients.passage_query import OVERLAP, Part
from pipeline.clients.passage_search import PassageFinder
from pipeline.clients.qdrant import open_passages
from pipeline.core.errors import Defer, Retry
from pipeline.core.index_ports import Embedding, PassageSearch, Search
from tests.clients.qdrant_filled import BM25, NAME, filled
from tests.clients.qdrant_server import qdrant_server
from tests.contracts.passage_search_contract import (
    CLOSING,
    FLOWERS,
    OPENING,
    PARCELS,
    RULES,
    Held,
    PassageSearchContract,
    held,
    told,
)

pytestmark = pytest.mark.local

PARTS: Sequence[Sequence[Part]] = (("sparse",), ("dense",), ("sparse", "dense"))


class Meaning:
    """An embedder that knows a few words by what they are about; `asked` is what it was asked."""

    model = "meaning"

    def __init__(self) -> None:
        """Know three subjects."""
        self.asked: list[str] = []
        self.trouble: Defer | None = None
        self._about = (("opens", "when", "nine"), ("parcels", "package", "sent"), ("closed", "sunday", "weekend"))

    async def embed(self, texts: Sequence[str]) -> Embedding:
        """Embed some texts; see the port."""
        self.asked += texts
        if self.trouble:
            raise self.trouble
        return Embedding([self._vector(text.casefold()) for text in texts], 1)

    def _vector(self, text: str) -> list[float]:
        return [0.01 + sum(word in text for word in words) for words in self._about]


class TestSparse(PassageSearchContract):
    """By words alone, the port's contract is kept."""

    @asynccontextmanager
    async def holding(self, documents: Held) -> AsyncIterator[PassageSearch]:
        async with filled(documents) as place:
            yield PassageFinder(place, BM25)


def finder(place: Place, *parts: Part) -> PassageFinder:
    """Make a finder by some parts, or all."""
    return PassageFinder(place, BM25, parts or ("sparse", "dense"))


# ---- by meaning, and by both -----------------------------------------------------------------------------------------
DOCUMENTS = [RULES, held("secret", OPENING, PARCELS, CLOSING, tenant="rival")]


async def test_meaning_alone_finds_what_words_do_not() -> None:
    """The same question, asked by each part alone: no word of it is in the passage."""
    async with filled(DOCUMENTS, Meaning()) as place:
        asked = Search("acme", "When was my package sent?", 1, threshold=0.8)
        by_words = await finder(place, "sparse").search(asked)
        by_meaning = await finder(place, "dense").search(asked)
    assert list(by_words) == []
    assert told(by_meaning) == [("rules", 1, PARCELS)]


async def test_both_parts_are_fused() -> None:
    """What one part alone finds is found, what both find comes first, and each passage comes once."""
    async with filled(DOCUMENTS, Meaning()) as place:
        found = await finder(place).search(Search("acme", "flowers sent as a package: returned?", 3))
    assert [one.text for one in found[:2]] == [PARCELS, FLOWERS]
    assert len({one.chunk for one in found}) == 3
    assert 0 < found[-1].score <= found[0].score <= 1


async def test_another_tenants_passages_are_in_no_part() -> None:
    """A tenant without documents finds nothing, by words or by meaning, though all it asks for is there."""
    async with filled(DOCUMENTS, Meaning()) as place:
        for parts in PARTS:
            search = PassageFinder(place, BM25, parts)
            assert list(await search.search(Search("nobody", OPENING, 5))) == []
            assert {one.document for one in await search.search(Search("rival", OPENING, 5, neighbours=1))} == {
                "secret"
            }
            assert list(await search.search(Search("acme", OPENING, 5, {"document": "secret"}))) == []


async def test_a_threshold_is_in_the_scale_of_each_part() -> None:
    """A passage stays if its words or its meaning reach the threshold; its rank among bad ones does not count."""
    async with filled(DOCUMENTS, Meaning()) as place:
        search = finder(place)
        asked = "Flowers: when was my package sent?"
        both = await search.search(Search("acme", asked, 5, threshold=0.8))
        words = await search.search(Search("acme", asked, 5, threshold=1.1))
        none = await search.search(Search("acme", asked, 5, threshold=100))
    assert {one.text for one in both} == {PARCELS, FLOWERS}
    assert [one.text for one in words] == [FLOWERS]
    assert list(none) == []


async def test_stop_words_alone_still_have_a_meaning() -> None:
    """Where no word is left to look for, the meaning is asked alone; without an embedder nothing is found."""
    async with filled(DOCUMENTS, Meaning()) as place:
        assert [one.chunk for one in await finder(place).search(Search("acme", "When?", 1))] == [0]
        assert list(await finder(place, "sparse").search(Search("acme", "When?", 1))) == []
    async with filled(DOCUMENTS) as place:
        assert list(await finder(place).search(Search("acme", "When?", 1))) == []
        assert list(await finder(place, "dense").search(Search("acme", OPENING, 1))) == []


async def test_points_without_vectors_never_appear() -> None:
    """What is in the collection for other ends is not found, and is nobody's neighbour, whoever searches and how."""
    mark = {"tenant": "acme", "source": "handbook", "document": "rules", "version": 7, "mark": True}
    async with filled([RULES], Meaning()) as place:
        await place.client.upsert(NAME, [models.PointStruct(id=number, vector={}, payload=mark) for number in (1, 2)])
        for parts in PARTS:
            asked = Search("acme", f"{OPENING} {PARCELS}", 9, neighbours=2)
            found = await PassageFinder(place, BM25, parts).search(asked)
            assert [one.text.count(OPENING) for one in found] == [1]


async def test_what_the_embedder_raises_is_the_searchs_outcome() -> None:
    """No answer is given by words alone because the meaning could not be had in time."""
    dense = Meaning()
    async with filled(DOCUMENTS, dense) as place:
        dense.trouble = Defer("slow down", until=1.0)
        with pytest.raises(Defer):
            await finder(place).search(Search("acme", OPENING, 1))


async def test_nobody_is_asked_for_what_nothing_can_match() -> None:
    """A filter that no document could pass, or a limit of 0, costs no embedding and no query."""
    dense = Meaning()
    async with filled(DOCUMENTS, dense) as place:
        dense.asked.clear()
        await place.client.delete_collection(NAME)
        for wanted in (Search("acme", OPENING, 5, {"a.b": "x"}), Search("acme", OPENING, 0)):
            assert list(await finder(place).search(wanted)) == []
    assert dense.asked == []


async def test_neighbours_are_read_in_one_request() -> None:
    """However many passages were found, their neighbours cost one more request; without neighbours there is none."""
    documents = [held(f"d{number}", OPENING, PARCELS, CLOSING) for number in range(4)]
    async with filled(documents) as place:
        runs: list[str] = []

        async def counted(work: Coroutine[Any, Any, Any]) -> Any:
            runs.append(work.cr_code.co_name)  # type: ignore[attr-defined]  # a native coroutine
            return await work

        search = PassageFinder(Place(place.client, NAME, counted, time.time, indexed=False), BM25)
        assert len(await search.search(Search("acme", PARCELS, 4, neighbours=1))) == 4
        assert len(await search.search(Search("acme", PARCELS, 4))) == 4
    assert runs[-3:] == ["query_points", "scroll", "query_points"]


async def test_a_neighbour_of_another_version_is_none() -> None:
    """While a document is being written anew, its old chunks and its new ones are not joined."""
    async with filled([held("rules", OPENING, PARCELS, CLOSING)]) as place:
        second = points.point_id("handbook", "rules", 2)
        await place.client.set_payload(NAME, {points.VERSION: 8}, points=[second])
        (found,) = await finder(place).search(Search("acme", "parcels returned", 1, neighbours=1))
    assert told([found]) == [("rules", 1, f"{OPENING}\n\n{PARCELS}")]


async def test_what_a_chunk_says_that_it_repeats_comes_once() -> None:
    """Also what the chunk before does not end with, such as headings."""
    async with filled([held("rules", f"Hours\n\n{OPENING}", f"Hours\n\n{PARCELS}")]) as place:
        second = points.point_id("handbook", "rules", 1)
        await place.client.set_payload(NAME, {OVERLAP: 5}, points=[second])
        (found,) = await finder(place).search(Search("acme", "parcels returned", 1, neighbours=1))
    assert (found.text, found.chunk) == (f"Hours\n\n{OPENING}\n\n{PARCELS}", 1)


async def test_a_neighbour_that_is_no_passage_is_an_error_of_the_index() -> None:
    """A point that this program cannot have written is named, not joined to an answer."""
    async with filled([RULES]) as place:
        broken = points.point_id("handbook", "rules", 0)
        await place.client.set_payload(NAME, {points.TEXT: None}, points=[broken])
        with pytest.raises(Retry, match="no passage"):
            await finder(place).search(Search("acme", "thirty days of their arrival", 1, neighbours=1))


async def test_a_server_is_asked_for_the_tenant_in_every_part() -> None:
    """Over HTTP, too: in the query, in both prefetches and among the neighbours; and it finds what is found here."""
    async with (
        qdrant_server() as server,
        open_passages(None, server.url, None, NAME, time.time, Meaning()) as index,
    ):
        for document, chunks in DOCUMENTS:
            await index.replace(document, chunks)
        server.asked.clear()
        found = await index.search(Search("acme", "When was my package sent?", 1, threshold=0.8, neighbours=1))
    fused, around = (asked.body for asked in server.asked if asked.path != "/aliases")
    tenant = {"key": "tenant", "match": {"value": "acme"}}
    assert [part["filter"]["must"] for part in (fused, *fused["prefetch"])] == [[tenant]] * 3
    assert tenant in around["filter"]["must"]
    assert [one.document for one in found] == ["rules"]
    assert [part["score_threshold"] for part in fused["prefetch"]] == [0.8, 0.8]
    assert found[0].text.startswith(f"{OPENING}\n\n{PARCELS}")

"""Tests of pipeline/clients/passage_entries.py, on the embedded engine and over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from qdrant_client import models

from pipeline.clients import passage_points as points
from tests.clients.qdrant_opened import opened
from tests.contracts.passage_index_contract import OPENING, RETURNS, chunks, document

pytestmark = [pytest.mark.local, pytest.mark.parametrize("kind", ["embedded", "remote"])]


async def test_what_is_held_of_documents_is_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Living and removed ones, in any number of pages; of what is not held nothing is told, and nothing is damaged."""
    monkeypatch.setattr("pipeline.clients.passage_status.PAGE", 2)
    async with opened(kind, tmp_path) as index:
        assert await index.entries("handbook", ["shop"]) == {}
        assert await index.entries("handbook", []) == {}
        await index.replace(document(7, fields={"lang": "en"}), chunks(OPENING, RETURNS, "It closes at six."))
        await index.remove(document(9, name="gone"))
        await index.replace(document(8, source="forum"), chunks(OPENING))
        await index.empty("other", 3)
        entries = await index.entries("handbook", ["shop", "gone", "never"])
        assert list(await index.sources()) == ["forum", "handbook", "other"]
        assert [await index.marked(name) for name in ("handbook", "forum", "other")] == [2, 1, 0]
        assert [await index.emptied(name) for name in ("handbook", "other")] == [None, 3]
        assert sorted([name async for page in index.chunked("handbook") for name in page]) == ["shop"] * 3
    assert entries.keys() == {"shop", "gone"}
    shop, gone = entries["shop"], entries["gone"]
    assert (shop.version, shop.deleted, shop.living, shop.damage) == (7, False, True, "")
    assert (shop.tenant, shop.title, shop.fields) == ("acme", "Hours", {"lang": "en"})
    assert shop.content == index.content("Hours", [OPENING, RETURNS, "It closes at six."])
    assert (gone.version, gone.deleted, gone.living, gone.damage) == (9, True, False, "")


async def test_its_stamp_moves_with_whatever_is_held(kind: str, tmp_path: Path) -> None:
    """The same twice is the same; a new state, and any payload that was altered, is another."""
    async with opened(kind, tmp_path) as index:
        stamps = []
        for version in (1, 1, 2):
            await index.replace(document(version), chunks(OPENING))
            stamps.append((await index.entries("handbook", ["shop"]))["shop"].stamp)
    assert stamps[0] == stamps[1] != stamps[2]


async def test_documents_are_drawn_at_random(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many different ones as are asked for, or all there are; not always the same."""
    monkeypatch.setattr("pipeline.clients.passage_status.PAGE", 3)
    async with opened(kind, tmp_path) as index:
        for number in range(12):
            await index.replace(document(1, name=f"n{number}"), chunks(OPENING))
        drawn = [tuple(await index.draw("handbook", 5)) for _ in range(20)]
        everything = await index.draw("handbook", 100)
    assert all(len(set(some)) == 5 for some in drawn)
    assert len(set(drawn)) > 1
    assert set(everything) == {f"n{number}" for number in range(12)}


async def test_what_is_discarded_is_what_was_read(kind: str, tmp_path: Path) -> None:
    """A chunk that nobody counts goes, whole documents stay, and a document without a mark is nothing but surplus."""
    async with opened(kind, tmp_path) as index:
        await index.replace(document(1), chunks(OPENING, RETURNS))
        await index.replace(document(1, name="other"), chunks(OPENING))
        place = index._collection
        mark = models.HasIdCondition(has_id=[points.mark_id("handbook", "shop")])
        chosen = models.FilterSelector(filter=models.Filter(must=[mark]))
        await place.run(place.client.delete(place.name, chosen))
        broken = (await index.entries("handbook", ["shop"]))["shop"]
        await index.discard("handbook", "other", surplus=False)
        await index.discard("handbook", "never", surplus=False)
        await index.discard("handbook", "shop", surplus=True)
        left = await index.entries("handbook", ["shop", "other"])
    assert (broken.version, broken.damage, broken.surplus) == (None, "2 chunks have no mark", True)
    assert left.keys() == {"other"}
    assert left["other"].damage == ""

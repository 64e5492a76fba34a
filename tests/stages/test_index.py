"""Tests of pipeline/stages/index.py."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.index_ports import Search
from pipeline.core.payloads import Document
from pipeline.devkit.fakes import FakeIndex, FakeRereads
from pipeline.stages.index import APART, MAX_BODY, Index
from tests.stages.made import context, event


def document(body: str = "The shop opens at nine.", **fields: Any) -> Document:
    """Make a document."""
    given: dict[str, Any] = {"source": "handbook", "id": "shop", "tenant": "acme", "title": "Hours", "version": 1}
    return Document(**(given | {"body": body} | fields))


async def index(store: FakeIndex, *documents: Document, rereads: FakeRereads | None = None) -> None:
    """Handle documents in order; there is no output."""
    for state in documents:
        assert list(await Index(store, rereads or FakeRereads())(event(state, type=""), context())) == []


async def found(store: FakeIndex, text: str = "shop opens nine") -> list[tuple[str, int]]:
    """Return text and version of what a search finds."""
    return [(passage.text, passage.version) for passage in await store.search(Search("acme", text, 9, {}))]


async def test_a_document_becomes_searchable() -> None:
    """Its body is normalised and cut, and its title kept."""
    store = FakeIndex()
    await index(store, document("Cafe\u0301\x00 opens.\r\n\r\nIt closes.", title=" Hours\x00 "))
    (passage,) = await store.search(Search("acme", "Caf\u00e9", 9, {}))
    assert (passage.text, passage.title, passage.chunk) == ("Caf\u00e9 opens.\n\nIt closes.", "Hours", 0)


async def test_a_large_body_is_cut_beside_everything_else() -> None:
    """While that takes its time, others go on; what becomes of it is the same."""
    store, busy = FakeIndex(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        thread.submit(busy.wait)
        large = asyncio.create_task(index(store, document("Opens.\n\n" * (APART // 8 + 1), id="large")))
        await asyncio.sleep(0)
        await index(store, document())
        assert set(store.documents) == {("handbook", "shop")}
        busy.set()
        await large
    assert set(store.documents) == {("handbook", "shop"), ("handbook", "large")}


async def test_a_new_version_replaces_the_old_one() -> None:
    """After a change only the new text is found; a late old version changes nothing."""
    store = FakeIndex()
    await index(store, document(), document("The shop opens at ten.", version=2), document())
    assert await found(store) == [("The shop opens at ten.", 2)]


@pytest.mark.parametrize("end", [{"deleted": True}, {"body": ""}, {"body": " \n\x00"}])
async def test_a_deleted_or_emptied_document_is_removed(end: dict[str, Any]) -> None:
    """A deletion needs no text; a body without text leaves nothing to find."""
    store = FakeIndex()
    await index(store, document(), document(**({"version": 2} | end)))
    assert await found(store) == []
    assert store.documents == {}


async def test_a_deletion_of_an_older_version_changes_nothing() -> None:
    """What comes late does not remove what is newer."""
    store = FakeIndex()
    await index(store, document(version=5), document(version=4, deleted=True))
    assert await found(store) == [("The shop opens at nine.", 5)]


@pytest.mark.parametrize("field", ["source", "id", "tenant"])
async def test_a_document_without_identity_is_rejected(field: str) -> None:
    """It could never be replaced or removed again."""
    with pytest.raises(Reject, match=f"empty {field}") as rejected:
        await index(FakeIndex(), document(**{field: ""}))
    assert rejected.value.code == "invalid_document"


@pytest.mark.parametrize("field", ["source", "id", "tenant", "title", "body"])
async def test_a_document_beyond_all_bounds_is_rejected(field: str) -> None:
    """A dead letter for a person, with the reason; the text itself is not in it."""
    with pytest.raises(Reject, match=f"the {field} of the document has") as rejected:
        await index(FakeIndex(), document(**{field: "x" * (MAX_BODY + 1)}))
    assert rejected.value.code == "document_too_large"
    assert len(rejected.value.reason) < 100


async def test_an_index_that_is_away_defers() -> None:
    """What the index raises is the stage's outcome."""
    store = FakeIndex()
    store.troubles.append(Defer("away", until=1.0))
    with pytest.raises(Defer):
        await index(store, document())


KEPT: dict[str, Any] = {"body": "", "body_kept": True, "version": 2}


async def test_a_body_that_is_not_told_is_read_where_the_index_has_none() -> None:
    """The row's body goes in at the change's version; where the index knows a text, nobody is asked."""
    store, rereads = FakeIndex(), FakeRereads()
    rereads.bodies["shop"] = "The shop opens at noon."
    await index(store, document(**KEPT), rereads=rereads)
    assert await found(store) == [("The shop opens at noon.", 2)]
    rereads.troubles.append(Defer("away", until=1.0))
    await index(store, document(**KEPT | {"version": 3}), rereads=rereads)
    assert await found(store) == [("The shop opens at noon.", 3)]


async def test_a_body_that_can_be_read_nowhere_is_tried_again() -> None:
    """The text may still come; three tries later it is a dead letter."""
    with pytest.raises(Retry) as tried:
        await index(FakeIndex(), document(**KEPT))
    assert tried.value.code == "no_body"


async def test_of_a_row_that_is_gone_nothing_is_owed() -> None:
    """Its deletion comes later."""
    store, rereads = FakeIndex(), FakeRereads()
    rereads.bodies["shop"] = None
    await index(store, document(**KEPT), rereads=rereads)
    assert (store.documents, store.removed) == ({}, {})


async def test_what_is_read_is_held_to_the_same_bounds() -> None:
    """A body that is too large is refused, an empty one leaves nothing to find."""
    store, rereads = FakeIndex(), FakeRereads()
    rereads.bodies["shop"] = "x" * (MAX_BODY + 1)
    with pytest.raises(Reject, match="the body of the document has"):
        await index(store, document(**KEPT), rereads=rereads)
    rereads.bodies["shop"] = " "
    await index(store, document(**KEPT), rereads=rereads)
    assert store.documents == {}

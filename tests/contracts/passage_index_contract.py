"""What every vector index promises, as PassageSearch and as PassageStore; run on the fake and on Qdrant."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pipeline.core.payloads import Document
from pipeline.core.ports import Chunk, PassageSearch, PassageStore, Search

OPENING = "The shop opens at nine on weekdays."
RETURNS = "Parcels may be returned within thirty days."
CLOSING = "On Sundays the shop stays closed."


class Index(PassageSearch, PassageStore, Protocol):
    """Both ports in one."""


def document(
    body_version: int = 1, *, name: str = "shop", tenant: str = "acme", source: str = "handbook", title: str = "Hours"
) -> Document:
    """Make a document; its body does not matter to the index, which gets chunks."""
    return Document(source=source, id=name, tenant=tenant, title=title, body="", version=body_version)


def chunks(*texts: str) -> tuple[Chunk, ...]:
    """Number some texts."""
    return tuple(Chunk(number, text) for number, text in enumerate(texts))


class PassageIndexContract(ABC):
    """Subclass it, say how to open one, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Index]:
        """Open an empty index."""

    async def test_an_empty_index_finds_nothing(self) -> None:
        """Before anything is stored, a search succeeds and finds none."""
        async with self.opened() as index:
            assert list(await index.search(Search("acme", "When does the shop open?", 3, {}))) == []

    async def test_a_stored_chunk_is_found_with_its_origin(self) -> None:
        """A passage carries source, document, chunk number, version, title and text, and a score."""
        async with self.opened() as index:
            assert not (await index.replace(document(7), chunks(OPENING, RETURNS))).stale
            found = await index.search(Search("acme", "parcels returned thirty days", 1, {}))
        assert [(p.source, p.document, p.chunk, p.version, p.title, p.text) for p in found] == [
            ("handbook", "shop", 1, 7, "Hours", RETURNS)
        ]
        assert found[0].score > 0

    async def test_the_best_match_comes_first_and_the_limit_holds(self) -> None:
        """Scores fall along the list, which is no longer than was asked for."""
        async with self.opened() as index:
            await index.replace(document(), chunks(OPENING, RETURNS, CLOSING))
            found = await index.search(Search("acme", "the shop opens at nine on weekdays", 2, {}))
        assert [passage.text for passage in found] == [OPENING, CLOSING]
        assert found[0].score > found[1].score

    async def test_the_title_is_searched_too(self) -> None:
        """The words of a document's title find its chunks."""
        async with self.opened() as index:
            await index.replace(document(title="Refund policy"), chunks(RETURNS))
            await index.replace(document(name="other"), chunks(OPENING))
            found = await index.search(Search("acme", "refund", 3, {}))
        assert [passage.document for passage in found] == ["shop"]

    async def test_another_tenant_sees_nothing(self) -> None:
        """A tenant finds its own passages only, whatever it filters by."""
        async with self.opened() as index:
            await index.replace(document(), chunks(OPENING))
            assert list(await index.search(Search("rival", "shop opens", 3, {}))) == []
            assert list(await index.search(Search("rival", "shop opens", 3, {"tenant": "acme"}))) == []

    async def test_filters_narrow(self) -> None:
        """Every filter must hold."""
        async with self.opened() as index:
            await index.replace(document(source="handbook"), chunks(OPENING))
            await index.replace(document(source="forum", name="post"), chunks(OPENING))
            found = await index.search(Search("acme", "shop opens", 3, {"source": "forum"}))
            none = await index.search(Search("acme", "shop opens", 3, {"source": "forum", "document": "shop"}))
        assert [passage.document for passage in found] == ["post"]
        assert list(none) == []

    async def test_a_new_version_replaces_the_whole_document(self) -> None:
        """Chunks that the new version does not have are gone."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, RETURNS, CLOSING))
            assert not (await index.replace(document(2), chunks(RETURNS))).stale
            found = await index.search(Search("acme", "shop opens closed parcels returned", 9, {}))
        assert [(passage.text, passage.version) for passage in found] == [(RETURNS, 2)]

    async def test_storing_twice_changes_nothing(self) -> None:
        """A repeat of the same version is accepted and has no effect."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, RETURNS))
            before = await index.search(Search("acme", "shop opens parcels returned", 9, {}))
            assert not (await index.replace(document(1), chunks(OPENING, RETURNS))).stale
            after = await index.search(Search("acme", "shop opens parcels returned", 9, {}))
        assert list(before) == list(after)

    async def test_the_same_version_may_be_cut_anew(self) -> None:
        """A repeat with fewer chunks, as after a change of the chunking, leaves no chunk of the earlier ones."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, RETURNS))
            await index.replace(document(1), chunks(f"{OPENING} {RETURNS}"))
            found = await index.search(Search("acme", "shop opens parcels returned", 9, {}))
        assert [passage.chunk for passage in found] == [0]

    async def test_an_older_version_changes_nothing(self) -> None:
        """What comes late is told apart by False: the newer version stays, against storing and against removal."""
        async with self.opened() as index:
            await index.replace(document(5), chunks(OPENING))
            assert (await index.replace(document(4), chunks(RETURNS, CLOSING))).stale
            assert (await index.remove(document(4))).stale
            found = await index.search(Search("acme", "shop opens closed parcels returned", 9, {}))
        assert [(passage.text, passage.version) for passage in found] == [(OPENING, 5)]

    async def test_removal_leaves_other_documents(self) -> None:
        """A removed document is found no more; removing it again is no error."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, CLOSING))
            await index.replace(document(1, name="post"), chunks(OPENING))
            assert not (await index.remove(document(1))).stale
            assert not (await index.remove(document(2))).stale
            found = await index.search(Search("acme", "shop opens closed", 9, {}))
        assert [passage.document for passage in found] == ["post"]

    async def test_a_document_may_change_its_tenant(self) -> None:
        """After a move the old tenant finds nothing of it."""
        async with self.opened() as index:
            await index.replace(document(1, tenant="acme"), chunks(OPENING, CLOSING))
            await index.replace(document(2, tenant="rival"), chunks(OPENING))
            old = await index.search(Search("acme", "shop opens closed", 9, {}))
            new = await index.search(Search("rival", "shop opens closed", 9, {}))
        assert (len(old), len(new)) == (0, 1)

    async def test_names_that_look_alike_are_different_documents(self) -> None:
        """Source and id do not run into each other."""
        async with self.opened() as index:
            await index.replace(document(1, source="a", name="b/c"), chunks(OPENING))
            await index.replace(document(1, source="a/b", name="c"), chunks(OPENING))
            found = await index.search(Search("acme", "shop opens", 9, {}))
        assert sorted((passage.source, passage.document) for passage in found) == [("a", "b/c"), ("a/b", "c")]

    async def test_versions_at_once_end_in_the_newest(self) -> None:
        """Versions of one document that are stored at the same time leave exactly the newest."""
        async with self.opened() as index:
            texts = [OPENING, RETURNS, CLOSING]
            writes = (index.replace(document(n), chunks(*texts[: n % 3 + 1])) for n in (3, 1, 5, 2, 4))
            await asyncio.gather(*writes)
            found = await index.search(Search("acme", "shop opens closed parcels returned", 9, {}))
        assert {(passage.version, passage.chunk) for passage in found} == {(5, 0), (5, 1), (5, 2)}

    async def test_a_search_without_words_finds_nothing(self) -> None:
        """Punctuation alone is no query, and no error."""
        async with self.opened() as index:
            await index.replace(document(), chunks(OPENING))
            assert list(await index.search(Search("acme", "?!", 3, {}))) == []

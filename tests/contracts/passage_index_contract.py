"""What every vector index promises, as PassageSearch and as PassageStore; run on the fake and on Qdrant."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pipeline.core.index_ports import Chunk, Indexed, PassageSearch, PassageStore, Search
from pipeline.core.payloads import Document

OPENING = "The shop opens at nine on weekdays."
RETURNS = "Parcels may be returned within thirty days."
CLOSING = "On Sundays the shop stays closed."


class Index(PassageSearch, PassageStore, Protocol):
    """Both ports in one."""


def document(body_version: int = 1, *, name: str = "shop", **more: Any) -> Document:
    """Make a document; its body does not matter to the index, which gets chunks."""
    told = {"source": "handbook", "tenant": "acme", "title": "Hours"} | more
    return Document(id=name, body="", version=body_version, **told)


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

    # ---- storing -----------------------------------------------------------------------------------------------------
    async def test_what_is_there_already_is_not_written_again(self) -> None:
        """A new version writes the chunks whose text changed, keeps the others, and removes those it has no more."""
        async with self.opened() as index:
            assert await index.replace(document(1), chunks(OPENING, RETURNS, CLOSING)) == Indexed(written=3)
            assert await index.replace(document(1), chunks(OPENING, RETURNS, CLOSING)) == Indexed(kept=3)
            assert await index.replace(document(2), chunks(OPENING, CLOSING)) == Indexed(written=1, kept=1, removed=1)
            found = await index.search(Search("acme", "shop opens closed parcels returned", 9, {}))
        assert sorted((one.chunk, one.text, one.version) for one in found) == [(0, OPENING, 2), (1, CLOSING, 2)]

    async def test_a_change_of_tenant_or_fields_writes_no_text(self) -> None:
        """What is not embedded changes without the text being written again."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING))
            moved = document(2, tenant="rival", fields={"lang": "en"})
            assert await index.replace(moved, chunks(OPENING)) == Indexed(kept=1)
            found = await index.search(Search("rival", "shop opens", 3, {}))
            assert list(await index.search(Search("acme", "shop opens", 3, {}))) == []
        assert [(one.text, one.version) for one in found] == [(OPENING, 2)]

    async def test_a_new_title_makes_the_text_new(self) -> None:
        """The title is embedded with each chunk, so that all of them are written."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, RETURNS))
            assert await index.replace(document(2, title="Doors"), chunks(OPENING, RETURNS)) == Indexed(written=2)
            found = await index.search(Search("acme", "doors", 9, {}))
        assert {one.title for one in found} == {"Doors"}

    async def test_a_late_version_does_not_bring_back_what_was_removed(self) -> None:
        """Not an older one, and not the very one that was removed; a newer one does."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING))
            assert await index.remove(document(3)) == Indexed(removed=1)
            assert await index.remove(document(3)) == Indexed()
            assert (await index.replace(document(2), chunks(RETURNS))).stale
            assert (await index.replace(document(3), chunks(RETURNS))).stale
            assert list(await index.search(Search("acme", "shop opens parcels", 9, {}))) == []
            assert not (await index.replace(document(4), chunks(RETURNS))).stale
            assert await index.search(Search("acme", "parcels", 9, {}))

    async def test_a_removal_may_come_first(self) -> None:
        """A document that was removed before it was ever seen stays away."""
        async with self.opened() as index:
            assert await index.remove(document(2)) == Indexed()
            assert (await index.replace(document(1), chunks(OPENING))).stale
            assert list(await index.search(Search("acme", "shop opens", 9, {}))) == []

    async def test_a_document_without_chunks_is_removed(self) -> None:
        """A body that came to nothing leaves nothing to be found."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING))
            assert await index.replace(document(2), ()) == Indexed(removed=1)
            assert list(await index.search(Search("acme", "shop opens", 9, {}))) == []

    async def test_a_body_that_is_not_told_is_kept(self) -> None:
        """A new title goes above the text that is there, and a repeat of that changes nothing."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING, RETURNS))
            assert await index.keep(document(2, title="Doors", body_kept=True)) == Indexed(written=2)
            assert await index.keep(document(2, title="Doors", body_kept=True)) == Indexed(kept=2)
            assert await index.keep(document(3, title="Doors", tenant="rival", body_kept=True)) == Indexed(kept=2)
            found = await index.search(Search("rival", "doors", 9, {}))
        assert sorted((one.text, one.title, one.version) for one in found) == [
            (RETURNS, "Doors", 3),
            (OPENING, "Doors", 3),
        ]

    async def test_a_body_that_nobody_knows_cannot_be_kept(self) -> None:
        """Where no text is known, None says so; nor is one known after a removal, until a newer text comes."""
        async with self.opened() as index:
            assert await index.keep(document(2, body_kept=True)) is None
            assert not (await index.replace(document(1), chunks(OPENING))).stale
            await index.remove(document(3))
            assert await index.keep(document(5, body_kept=True)) is None
            assert (await index.replace(document(4), chunks(RETURNS))).written
            assert await index.keep(document(5, body_kept=True)) == Indexed(kept=1)
            assert await index.keep(document(4, body_kept=True)) == Indexed(stale=True)

    async def test_a_body_that_comes_late_goes_below_the_newer_title(self) -> None:
        """A change that does not tell the body may overtake one that does: both end up in the document."""
        async with self.opened() as index:
            await index.replace(document(1), chunks(OPENING))
            await index.keep(document(3, title="Doors", body_kept=True))
            assert not (await index.replace(document(2), chunks(RETURNS))).stale
            assert (await index.replace(document(1), chunks(OPENING))).stale
            found = await index.search(Search("acme", "doors", 9, {}))
        assert [(one.text, one.title, one.version) for one in found] == [(RETURNS, "Doors", 3)]

    async def test_a_document_takes_its_text_along_to_a_new_id(self) -> None:
        """Once the former document is removed, its text is final, and goes under the new id."""
        async with self.opened() as index:
            await index.replace(document(1, name="old"), chunks(OPENING, RETURNS))
            renamed = document(2, name="new", former="old", body_kept=True)
            assert await index.keep(renamed) is None
            await index.remove(document(2, name="old"))
            assert await index.keep(renamed) == Indexed(written=2)
            assert await index.keep(renamed) == Indexed(kept=2)
            found = await index.search(Search("acme", "shop opens parcels", 9, {}))
        assert sorted((one.document, one.chunk, one.text) for one in found) == [
            ("new", 0, OPENING),
            ("new", 1, RETURNS),
        ]

    async def test_a_source_is_emptied_up_to_a_version(self) -> None:
        """What is newer stays, and so do other sources; what is older comes too late, also what was never seen."""
        async with self.opened() as index:
            await index.replace(document(1, name="gone"), chunks(OPENING, CLOSING))
            await index.replace(document(6, name="newer"), chunks(OPENING))
            await index.replace(document(1, source="forum"), chunks(OPENING))
            assert await index.empty("handbook", 5) == Indexed(removed=2)
            assert await index.empty("handbook", 5) == Indexed()
            assert await index.empty("handbook", 4) == Indexed(stale=True)
            assert (await index.replace(document(2, name="gone"), chunks(OPENING))).stale
            assert (await index.replace(document(5, name="never seen"), chunks(OPENING))).stale
            assert await index.keep(document(5, name="never seen", body_kept=True)) == Indexed(stale=True)
            assert (await index.remove(document(5, name="never seen"))).stale
            assert not (await index.replace(document(7, name="back"), chunks(CLOSING))).stale
            found = await index.search(Search("acme", "shop opens closed", 9, {}))
        assert sorted(one.document for one in found) == ["back", "newer", "shop"]

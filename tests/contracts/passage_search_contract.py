"""What every vector index promises to who searches it; run on the fake and on Qdrant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from pipeline.core.index_ports import Chunk, PassageSearch, Search
from pipeline.core.payloads import Document, Passage

Held = Sequence[tuple[Document, Sequence[Chunk]]]
"""Documents with their chunks."""

OPENING = "The shop opens at nine on weekdays."
PARCELS = "Parcels may be returned within thirty days of their arrival."
REFUNDS = "Refunds reach the account of the buyer after five working days."
FLOWERS = "Flowers cannot be returned once they were cut."
CLOSING = "On Sundays the doors stay closed all day."


def held(
    name: str, *texts: str, tenant: str = "acme", source: str = "handbook", version: int = 7, **fields: str
) -> tuple[Document, Sequence[Chunk]]:
    """Make a document of some chunks; `fields` are what requests may filter by."""
    document = Document(
        source=source, id=name, tenant=tenant, title="Hours", body="", version=version, fields=dict(fields)
    )
    return document, [Chunk(number, text) for number, text in enumerate(texts)]


def told(found: Sequence[Passage]) -> list[tuple[str, int, str]]:
    """Document, chunk number and text of each."""
    return [(one.document, one.chunk, one.text) for one in found]


RULES = held("rules", OPENING, PARCELS, REFUNDS, FLOWERS, CLOSING)
LEAKS: Sequence[Mapping[str, str]] = (
    {"tenant": "rival"},
    {"tenant": "*"},
    {"tenant": ""},
    {"tenant ": "rival"},
    {"fields.tenant": "rival"},
    {"": "rival"},
    {"[]": "rival"},
    {"document": "secret"},
    {"language": "de"},
)
"""Filters of one tenant that are true of what another one has, or would be if they were read as more than names."""


class PassageSearchContract(ABC):
    """Subclass it, say how to open an index that holds some documents, and pytest runs it."""

    @abstractmethod
    def holding(self, documents: Held) -> AbstractAsyncContextManager[PassageSearch]:
        """Open an index that holds `documents` and nothing else."""

    # ---- tenant and filters ------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("filters", LEAKS, ids=str)
    async def test_no_filter_widens_what_a_tenant_sees(self, filters: Mapping[str, str]) -> None:
        """A filter that is true of another tenant's document only finds nothing, whatever its name or value."""
        secret = held("secret", OPENING, tenant="rival", language="de", tenant_="rival")
        async with self.holding([secret, held("own", OPENING)]) as index:
            assert list(await index.search(Search("acme", OPENING, 5, filters))) == []

    @pytest.mark.parametrize("tenant", ["", "*", "acme ", "ACME", "acme\x00", "acme OR rival", '{"any": ["acme"]}'])
    async def test_a_tenant_is_compared_whole(self, tenant: str) -> None:
        """What only looks like a tenant's name is another tenant, and has nothing."""
        async with self.holding([held("own", OPENING)]) as index:
            assert list(await index.search(Search(tenant, OPENING, 5))) == []

    async def test_no_text_widens_what_a_tenant_sees(self) -> None:
        """What is asked is words, whatever it says."""
        asked = f'tenant:rival {OPENING} "filter": {{"must": []}} OR 1=1'
        async with self.holding([held("secret", OPENING, tenant="rival"), held("own", OPENING)]) as index:
            assert {one.document for one in await index.search(Search("acme", asked, 5))} == {"own"}

    async def test_no_neighbour_is_anothers(self) -> None:
        """Documents of two tenants that are called the same share no text."""
        texts = [OPENING, PARCELS, REFUNDS]
        async with self.holding([held("rules", *texts, tenant="rival"), held("other", OPENING)]) as index:
            found = await index.search(Search("acme", OPENING, 5, neighbours=5))
        assert told(found) == [("other", 0, OPENING)]

    @pytest.mark.parametrize(
        "filters,names",
        [
            ({"source": "forum"}, "c"),
            ({"document": "a"}, "a"),
            ({"title": "Hours"}, "abc"),
            ({"tenant": "acme"}, "abc"),
            ({"language": "de"}, "ac"),
            ({"language": "de", "source": "handbook"}, "a"),
            ({"language": "de", "level": "1"}, ""),
            ({"language": "d"}, ""),
            ({"language": ""}, ""),
            ({"nothing": "de"}, ""),
            ({"text": OPENING}, ""),
            ({"version": "7"}, ""),
            ({"source": "handbook", "document": "b", "level": "1"}, "b"),
        ],
        ids=str,
    )
    async def test_all_filters_hold(self, filters: Mapping[str, str], names: str) -> None:
        """Of the passage itself and of its document's fields; a field that a document lacks has no value."""
        documents = [
            held("a", OPENING, language="de"),
            held("b", OPENING, language="en", level="1"),
            held("c", OPENING, source="forum", language="de", document="a"),
        ]
        async with self.holding(documents) as index:
            assert {one.document for one in await index.search(Search("acme", OPENING, 5, filters))} == set(names)

    async def test_a_field_does_not_stand_for_the_passage_itself(self) -> None:
        """A document cannot pass for another by a field that is called like what all passages have."""
        posing = held("posing", OPENING, source="forum", title="Hours", tenant="acme")
        posing[0].fields.update(source="handbook", document="real", tenant="rival")
        async with self.holding([posing]) as index:
            for filters in ({"source": "handbook"}, {"document": "real"}, {"tenant": "rival"}):
                assert list(await index.search(Search("acme", OPENING, 5, filters))) == []

    # ---- threshold and diversity -------------------------------------------------------------------------------------
    async def test_what_scores_below_the_threshold_is_left_out(self) -> None:
        """Between the best two scores there is the best; above the best there is nothing."""
        async with self.holding([RULES, held("post", CLOSING)]) as index:
            asked = "parcels returned thirty days"
            best, second, *_ = await index.search(Search("acme", asked, 5))
            above = await index.search(Search("acme", asked, 5, threshold=(best.score + second.score) / 2))
            none = await index.search(Search("acme", asked, 5, threshold=best.score + 0.1))
        assert best.score > second.score
        assert [list(above), list(none)] == [[best], []]

    async def test_one_document_does_not_crowd_out_the_others(self) -> None:
        """The best of each document come, in the order of their scores, and no more than the limit."""
        many = held("many", *[f"{OPENING} It is room {number} of the shop." for number in range(60)])
        few = held("few", "There is a shop.", "Another shop, too.")
        async with self.holding([many, few]) as index:
            asked = Search("acme", "The shop opens at nine on weekdays, room", 3)
            crowded = await index.search(asked)
            shared = await index.search(Search(asked.tenant, asked.text, 3, per_document=1))
            more = await index.search(Search(asked.tenant, asked.text, 3, per_document=2))
        assert {one.document for one in crowded} == {"many"}
        assert [one.document for one in shared] == ["many", "few"]
        assert [one.document for one in more] == ["many", "many", "few"]
        assert [one.score for one in more] == sorted((one.score for one in more), reverse=True)

    async def test_documents_of_two_sources_are_two(self) -> None:
        """The same id in another source is another document."""
        async with self.holding([held("a", OPENING), held("a", OPENING, source="forum")]) as index:
            found = await index.search(Search("acme", OPENING, 5, per_document=1))
        assert {one.source for one in found} == {"handbook", "forum"}

    # ---- neighbours --------------------------------------------------------------------------------------------------
    async def test_a_passage_comes_with_its_neighbours(self) -> None:
        """Its text grows to both sides, as far as the document goes; what it is cited by stays."""
        async with self.holding([RULES]) as index:
            (plain,) = await index.search(Search("acme", "refunds account buyer", 1))
            (wide,) = await index.search(Search("acme", "refunds account buyer", 1, neighbours=1))
            (whole,) = await index.search(Search("acme", "refunds account buyer", 1, neighbours=5))
        assert wide == plain.model_copy(update={"text": "\n\n".join([PARCELS, REFUNDS, FLOWERS])})
        assert whole.text == "\n\n".join([OPENING, PARCELS, REFUNDS, FLOWERS, CLOSING])
        assert (whole.chunk, whole.version) == (2, 7)

    async def test_passages_that_meet_become_one(self) -> None:
        """No text comes twice: the best of them stands for both."""
        async with self.holding([RULES, held("post", "Refunds of stamps.")]) as index:
            found = await index.search(
                Search("acme", "parcels returned thirty days; flowers returned", 5, neighbours=1)
            )
        assert told(found) == [("rules", 1, "\n\n".join([OPENING, PARCELS, REFUNDS, FLOWERS, CLOSING]))]

    async def test_what_chunks_overlap_by_comes_once(self) -> None:
        """Chunks that share a sentence are joined without repeating it."""
        async with self.holding([held("rules", f"{OPENING} {CLOSING}", f"{CLOSING} {PARCELS}")]) as index:
            (found,) = await index.search(Search("acme", "parcels returned", 1, neighbours=1))
        assert found.text == f"{OPENING} {CLOSING} {PARCELS}"

    async def test_the_tokens_bound_what_comes_along(self) -> None:
        """What was found comes first; where nothing more fits, it stays as it was; what is too large is left out."""
        async with self.holding([RULES]) as index:
            asked = "parcels returned arrival"
            tight = await index.search(Search("acme", asked, 1, neighbours=2, tokens=36))
            just = await index.search(Search("acme", asked, 1, neighbours=2, tokens=20))
            none = await index.search(Search("acme", asked, 1, neighbours=2, tokens=19))
        assert [told(tight), told(just), list(none)] == [
            [("rules", 1, f"{OPENING}\n\n{PARCELS}")],
            [("rules", 1, PARCELS)],
            [],
        ]

    # ---- nothing to look for -----------------------------------------------------------------------------------------
    async def test_who_wants_nothing_gets_nothing(self) -> None:
        """A limit of 0 is no error."""
        async with self.holding([RULES]) as index:
            assert list(await index.search(Search("acme", OPENING, 0))) == []

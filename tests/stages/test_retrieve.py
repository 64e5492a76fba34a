"""Tests of pipeline/stages/retrieve.py and kind.py."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.catalog import Catalog
from pipeline.core.errors import Defer, Fail, Reject
from pipeline.core.index_ports import Chunk, Search
from pipeline.core.payloads import Document, Prompt, RetrievedContext
from pipeline.devkit.fakes import FakeFreshness, FakeIndex
from pipeline.stages.retrieve import BEHIND_SECONDS, Retrieve, search_of
from tests.stages.made import NOW, NOW_MS, catalog, context, event


def prompt(text: str = "The shop opens when?", **fields: Any) -> Prompt:
    """Make a prompt."""
    given: dict[str, Any] = {
        "type": "quick",
        "lane": "standard",
        "deadline_ms": NOW_MS,
        "catalog": "v",
        "input_tokens": 5,
    }
    return Prompt(**(given | {"input": text} | fields))


async def filled() -> FakeIndex:
    """Make an index with documents of two tenants."""
    index = FakeIndex()
    for tenant, name, text in (
        ("acme", "shop", "The shop opens at nine."),
        ("acme", "post", "The post office closes at the shop."),
        ("rival", "secret", "The shop opens at five."),
    ):
        document = Document(source="handbook", id=name, tenant=tenant, title="Hours", body=text, version=3)
        await index.replace(document, [Chunk(0, text)])
    return index


async def retrieve(
    index: FakeIndex, asked: Prompt, known: Catalog | None = None, freshness: FakeFreshness | None = None
) -> RetrievedContext:
    """Return the one output."""
    handler = Retrieve(known or catalog(), index, freshness or FakeFreshness())
    (found,) = await handler(event(asked), context())
    return found


async def test_passages_of_the_tenant_are_found() -> None:
    """Each carries where it is from; another tenant's are not among them."""
    found = await retrieve(await filled(), prompt(endpoint="crm", metadata={"ticket": "7"}))
    assert [(p.document, p.chunk, p.version) for p in found.passages] == [("shop", 0, 3), ("post", 0, 3)]
    assert found.passages[0].score > found.passages[1].score
    assert (found.input, found.endpoint, found.metadata) == ("The shop opens when?", "crm", {"ticket": "7"})


async def test_the_requests_filters_narrow_the_search() -> None:
    """A filter reaches the index."""
    found = await retrieve(await filled(), prompt(filters={"document": "post"}))
    assert [passage.document for passage in found.passages] == ["post"]


async def test_the_types_count_is_the_limit() -> None:
    """No more passages than the type allows."""
    found = await retrieve(await filled(), prompt(), catalog(retrieval={"passages": 1}))
    assert [passage.document for passage in found.passages] == ["shop"]


async def test_a_type_without_retrieval_costs_no_search() -> None:
    """`passages: 0` asks nobody."""
    index = await filled()
    found = await retrieve(index, prompt(), catalog(retrieval={"passages": 0}))
    assert (found.passages, index.searches) == ((), [])


async def test_an_index_that_is_away_defers() -> None:
    """What the index raises is the stage's outcome."""
    index = FakeIndex()
    index.troubles.append(Defer("away", until=1.0))
    with pytest.raises(Defer):
        await retrieve(index, prompt())


async def test_a_type_that_has_vanished_is_our_fault() -> None:
    """`preprocess` knew the type; a process with another catalog must not blame the caller."""
    with pytest.raises(Reject) as rejected:
        await retrieve(FakeIndex(), prompt(type="gone"))
    assert rejected.value.code == "unknown_type"


async def test_what_the_type_says_reaches_the_index() -> None:
    """Threshold, diversity, neighbours and tokens are the catalog's; text and filters are the request's."""
    known = catalog(retrieval={"passages": 3, "tokens": 90, "score_threshold": 0.5, "per_document": 2, "neighbours": 1})
    wanted = search_of(prompt(filters={"document": "post"}), "acme", known.types["quick"].retrieval)
    assert wanted == Search("acme", "The shop opens when?", 3, {"document": "post"}, 0.5, 2, 1, 90)


async def test_a_passage_brings_its_neighbours_within_the_budget() -> None:
    """What was found comes first; its surroundings come as far as the tokens have room."""
    index, texts = FakeIndex(), ("The shop opens at nine.", "It is in Mill Lane, by the bridge.", "Dogs are welcome.")
    document = Document(source="handbook", id="shop", tenant="acme", title="Hours", body="", version=3)
    await index.replace(document, [Chunk(number, text) for number, text in enumerate(texts)])
    asked = prompt("Mill Lane?")
    wide = await retrieve(index, asked, catalog(retrieval={"neighbours": 1}))
    tight = await retrieve(index, asked, catalog(retrieval={"neighbours": 1, "tokens": 24}))
    narrow = await retrieve(index, asked, catalog(retrieval={"neighbours": 1, "tokens": 12}))
    assert [p.text for p in wide.passages] == ["\n\n".join(texts)]
    assert [p.text for p in tight.passages] == ["\n\n".join(texts[:2])]
    assert [(p.text, p.chunk) for p in narrow.passages] == [(texts[1], 1)]


async def test_a_prompt_waits_for_an_index_that_is_behind() -> None:
    """While a source has not got so far, the prompt is deferred for a moment, and nothing is looked for."""
    index, freshness = await filled(), FakeFreshness()
    freshness.versions = {"handbook": 6, "forum": 9}
    with pytest.raises(Defer) as deferred:
        await retrieve(index, prompt(as_fresh_as={"forum": 9, "handbook": 7}), freshness=freshness)
    assert (deferred.value.code, deferred.value.until) == ("index_behind", NOW + BEHIND_SECONDS)
    assert index.searches == []


async def test_an_index_that_has_caught_up_is_asked() -> None:
    """At the version or past it, passages are found as ever."""
    freshness = FakeFreshness()
    freshness.versions = {"handbook": 7}
    for version in (7, 6):
        found = await retrieve(await filled(), prompt(as_fresh_as={"handbook": version}), freshness=freshness)
        assert [passage.document for passage in found.passages] == ["shop", "post"]


async def test_who_does_not_know_how_fresh_the_index_is_says_so() -> None:
    """What the port raises is the stage's outcome; a type that retrieves nothing does not ask it."""
    freshness, asked = FakeFreshness(), prompt(as_fresh_as={"handbook": 7})
    freshness.troubles.append(Fail("nobody knows", code="freshness_unknown"))
    with pytest.raises(Fail):
        await retrieve(await filled(), asked, freshness=freshness)
    await retrieve(await filled(), asked, catalog(retrieval={"passages": 0}), freshness)
    assert freshness.asked == [("handbook", 7, "event-1")]

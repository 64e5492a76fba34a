"""Tests of pipeline/stages/retrieve.py and kind.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.catalog import Catalog, Retrieval
from pipeline.core.errors import Defer, Reject
from pipeline.core.limits import estimate_tokens
from pipeline.core.payloads import Document, Prompt, RetrievedContext
from pipeline.core.ports import Chunk
from pipeline.devkit.fakes import FakeIndex
from pipeline.stages.retrieve import Retrieve, within_budget
from tests.stages.made import NOW_MS, catalog, context, event, passage


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


async def retrieve(index: FakeIndex, asked: Prompt, known: Catalog | None = None) -> RetrievedContext:
    """Return the one output."""
    (found,) = await Retrieve(known or catalog(), index)(event(asked), context())
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


def test_what_does_not_fit_is_left_out_whole() -> None:
    """A passage over the rest of the budget is skipped; a smaller one after it may still fit."""
    large, small, tiny = passage("l" * 300), passage("s" * 150), passage("t" * 90)
    assert within_budget([small, large, tiny], Retrieval(passages=5, tokens=80)) == (small, tiny)


@given(st.lists(st.text(max_size=200)), st.integers(0, 5), st.integers(1, 100))
def test_the_budget_always_holds(texts: list[str], count: int, tokens: int) -> None:
    """Whatever was found: no more than the count and the tokens allow, in the order in which it was found."""
    found = [passage(text, chunk=number) for number, text in enumerate(texts)]
    kept = within_budget(found, Retrieval(passages=count, tokens=tokens))
    assert len(kept) <= count
    assert sum(estimate_tokens(p.text) for p in kept) <= tokens
    assert [p.chunk for p in kept] == sorted(p.chunk for p in kept)

"""Tests of pipeline/clients/passage_query.py: whatever is asked, the tenant is a condition of every part."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from pipeline.clients.passage_points import point_id
from pipeline.clients.passage_query import Vectors, among, query, visible

pytestmark = pytest.mark.local

SPARSE = models.SparseVector(indices=[1], values=[1.0])
DENSE = [0.1, 0.2]
TENANT = {"key": "tenant", "match": {"value": "acme"}}
names = st.text(max_size=12) | st.sampled_from(["tenant", "source", "fields.tenant", "a.b", "a[]", '"tenant"', "lang"])


def plain(model: models.Filter | models.QueryRequest | None) -> Any:
    """Say what is sent."""
    return model.model_dump(mode="json", exclude_none=True) if model else None


@given(st.text(), st.dictionaries(names, st.text(), max_size=4))
def test_no_filter_can_widen_what_a_tenant_sees(tenant: str, filters: dict[str, str]) -> None:
    """A filter is nothing but more conditions that must all hold, on whole values; or nothing can be found at all."""
    made = plain(visible(tenant, filters))
    if made is None:
        assert any(not (name.isascii() and name.isidentifier()) for name in filters)
        return
    assert list(made) == ["must"]
    first, *more = made["must"]
    assert first == {"key": "tenant", "match": {"value": tenant}}
    assert [one["match"] for one in more] == [{"value": text} for text in filters.values()]
    own = {"tenant", "source", "document", "title"}
    assert [one["key"] for one in more] == [name if name in own else f"fields.{name}" for name in filters]


@given(st.none() | st.just(SPARSE), st.none() | st.just(DENSE), st.integers(1, 100), st.none() | st.floats(0, 1))
def test_the_tenant_and_the_threshold_are_in_every_part(
    sparse: models.SparseVector | None, dense: list[float] | None, limit: int, threshold: float | None
) -> None:
    """In the query, and in each prefetch that it is fused from; a fused score has no threshold."""
    seen = visible("acme", {"language": "de"})
    assert seen is not None
    made = plain(query(Vectors(sparse, dense), seen, limit, threshold))
    if sparse is None and dense is None:
        assert made is None
        return
    parts = made.get("prefetch") or [made]
    assert [part["using"] for part in parts] == ["bm25"] * (sparse is not None) + ["dense"] * (dense is not None)
    assert all(part.get("score_threshold") == threshold and part["limit"] == limit for part in parts)
    for part in (made, *parts):
        assert part["filter"] == {"must": [TENANT, {"key": "fields.language", "match": {"value": "de"}}]}
    if len(parts) == 2:
        assert made["query"] == {"fusion": "rrf"}
        assert "score_threshold" not in made


def test_neighbours_are_of_the_tenant_and_the_document() -> None:
    """All chunks of all documents are selected at once, by the ids of their points."""
    made = plain(among("acme", {("handbook", "shop", 3): {2, 1}, ("forum", "post", 5): {0}}))
    ids = [point_id("handbook", "shop", 1), point_id("handbook", "shop", 2), point_id("forum", "post", 0)]
    assert made == {"must": [{"has_id": ids}, TENANT]}

"""Searches as queries of Qdrant: what a tenant may see, and how words and meaning are asked for. Pure.

The tenant is a condition of the query and of each prefetch. It is compared, as is all that comes from a request, with
whole values of the payload (`MatchValue`); only the name of a field ever becomes part of a key, and only a plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.core.passages import Origin

OVERLAP = "overlap"
"""How many characters of its text a chunk repeats; see `Chunk`. A point without it repeats what can be seen."""

Part = Literal["sparse", "dense"]
"""What a search goes by: the words (BM25), or the meaning (a dense embedding)."""

DEPTH = 4
"""How many times as many points as passages are asked for, so that there is a choice."""
DEEPEST = 1_000
"""The most points of one query."""

_OWN = frozenset({points.TENANT, points.SOURCE, points.DOCUMENT, points.TITLE})


@dataclass(frozen=True, slots=True)
class Vectors:
    """A question, embedded; None for a part that has nothing to look for, or is not to be asked."""

    sparse: models.SparseVector | None = None
    dense: list[float] | None = None


def visible(tenant: str, filters: Mapping[str, str]) -> models.Filter | None:
    """Select what a tenant may see, narrowed by `filters`; None where no document could pass them.

    All conditions must hold, so no filter can widen what the tenant sees, whatever its name or value.
    """
    keys = {name: _key(name) for name in filters}
    if None in keys.values():
        return None
    narrowed = [_equals(key, filters[name]) for name, key in keys.items() if key]
    return models.Filter(must=[_equals(points.TENANT, tenant), *narrowed])


def query(
    vectors: Vectors, seen: models.Filter, limit: int, threshold: float | None = None
) -> models.QueryRequest | None:
    """Make the query for the best `limit` points; None where there is nothing to look for.

    Both parts are fused by reciprocal ranks (RRF) in Qdrant. `threshold` is compared with each part's own score, before
    they are fused: a fused score says how high a passage ranks, which the best of a bad lot does as well.
    """
    parts = [
        models.Prefetch(query=vector, using=name, filter=seen, limit=limit, score_threshold=threshold)
        for name, vector in ((points.VECTOR, vectors.sparse), (points.DENSE, vectors.dense))
        if vector is not None
    ]
    match parts:
        case []:
            return None
        case [only]:
            return models.QueryRequest(
                query=only.query, using=only.using, filter=seen, limit=limit, score_threshold=threshold
            )
    fused = models.FusionQuery(fusion=models.Fusion.RRF)
    return models.QueryRequest(prefetch=parts, query=fused, filter=seen, limit=limit)


def among(tenant: str, wanted: Mapping[Origin, AbstractSet[int]]) -> models.Filter:
    """Select chunks of some documents by their numbers, whatever their version, and only what the tenant may see.

    By the points' ids, which come first: the embedded engine looks at every point of the collection, one condition
    after the other.
    """
    ids = [
        points.point_id(source, document, number)
        for (source, document, _), numbers in wanted.items()
        for number in sorted(numbers)
    ]
    return models.Filter(must=[models.HasIdCondition(has_id=[*ids]), _equals(points.TENANT, tenant)])


def _key(name: str) -> str | None:
    """Say where in the payload a filter's name is; None for one that would be read as a path, or as nothing."""
    if name in _OWN:
        return name
    return f"{points.FIELDS}.{name}" if name.isascii() and name.isidentifier() else None


def _equals(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))

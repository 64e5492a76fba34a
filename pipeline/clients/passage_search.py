"""Reading the index: the port `PassageSearch` on Qdrant.

One document is kept from filling the list by asking for more points than passages and choosing among them: Qdrant
groups by one field of the payload, and a document is named by two, its source and its id.
"""

from __future__ import annotations

from collections.abc import Collection as Some
from collections.abc import Sequence

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection
from pipeline.clients.passage_query import DEEPEST, DEPTH, OVERLAP, Part, Vectors, among, query, visible
from pipeline.clients.qdrant_failures import translated
from pipeline.core.errors import Retry
from pipeline.core.index_ports import Chunk, Search
from pipeline.core.passages import Origin, Texts, diverse, fitting, near, origin_of, widened
from pipeline.core.payloads import Passage


class PassageFinder:
    """Finds passages in a collection: by their words, by their meaning where the collection has that, or by both.

    Scores are BM25's (unbounded) by words alone, the cosine by meaning alone, and by both those of the fusion, at most
    1. A threshold is in the parts' own scales also where both are asked: a passage stays if one of them scores it so.
    """

    def __init__(self, collection: Collection, bm25: points.Embedder, parts: Some[Part] = ("sparse", "dense")) -> None:
        """Ask `collection` by those of `parts` that it has; its own embedder, where it has one, embeds the question."""
        self._collection = collection
        self._words = bm25 if "sparse" in parts else None
        self._meaning = collection.embedder if "dense" in parts else None

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find passages; see the port."""
        seen = visible(wanted.tenant, wanted.filters)
        if seen is None or wanted.limit < 1:
            return ()
        vectors = await self._embedded(wanted.text)
        with translated(self._collection.clock):
            await self._collection.prepare()
            found = await self._best(wanted, vectors, seen)
            if wanted.tokens is not None:
                found = fitting(found, wanted.limit, wanted.tokens)
            texts = await self._around(wanted, found) if wanted.neighbours and found else {}
        return widened(found, texts, wanted.neighbours, wanted.tokens)

    async def _embedded(self, text: str) -> Vectors:
        sparse = self._words.query(text) if self._words else None
        if self._meaning is None:
            return Vectors(sparse)
        embedding = await self._meaning.embed([text])
        return Vectors(sparse, list(embedding.vectors[0]))

    async def _best(self, wanted: Search, vectors: Vectors, seen: models.Filter) -> Sequence[Passage]:
        """Choose the best passages; where a few documents fill what was read, read once more, and much deeper."""
        best: Sequence[Passage] = ()
        for most in (min(wanted.limit * DEPTH, DEEPEST), DEEPEST):
            found = await self._ask(query(vectors, seen, most, wanted.threshold))
            best = diverse(found, wanted.limit, wanted.per_document)
            if len(best) == wanted.limit or len(found) < most:
                break
        return best

    async def _ask(self, wanted: models.QueryRequest | None) -> list[Passage]:
        if wanted is None:
            return []
        place = self._collection
        answer = await place.run(
            place.client.query_points(
                place.name,
                prefetch=wanted.prefetch,
                query=wanted.query,
                using=wanted.using,
                query_filter=wanted.filter,
                limit=wanted.limit or DEEPEST,
                score_threshold=wanted.score_threshold,
                with_payload=True,
            )
        )
        # Equal scores are frequent in a fusion, and their order is nobody's promise.
        return sorted(_passages(answer.points), key=lambda one: (-one.score, one.source, one.document, one.chunk))

    async def _around(self, wanted: Search, found: Sequence[Passage]) -> Texts:
        """Read the neighbours of all passages in one request."""
        place, chunks = self._collection, near(found, wanted.neighbours)
        read, _ = await place.run(
            place.client.scroll(
                place.name,
                scroll_filter=among(wanted.tenant, chunks),
                limit=sum(map(len, chunks.values())),
                with_payload=True,
            )
        )
        texts: dict[Origin, dict[int, Chunk]] = {}
        for point in read:
            (one,) = _passages([models.ScoredPoint(id=point.id, version=0, score=0.0, payload=point.payload)])
            repeated = (point.payload or {}).get(OVERLAP)
            chunk = Chunk(one.chunk, one.text, repeated if isinstance(repeated, int) else 0)
            texts.setdefault(origin_of(one), {})[one.chunk] = chunk
        return texts


def _passages(found: Sequence[models.ScoredPoint]) -> list[Passage]:
    try:
        return [points.make_passage(point) for point in found]
    except ValueError as error:
        raise Retry(f"the index holds a point that is no passage: {error}", code="index_error") from error

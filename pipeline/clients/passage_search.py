"""Reading the index: the port `PassageSearch` on Qdrant."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection
from pipeline.clients.qdrant_failures import translated
from pipeline.core.errors import Retry
from pipeline.core.payloads import Passage
from pipeline.core.ports import Search


class PassageFinder:
    """Finds passages in a collection."""

    def __init__(self, collection: Collection, bm25: points.Embedder) -> None:
        """Ask `collection`."""
        self._collection = collection
        self._bm25 = bm25

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find passages; see the port."""
        query = self._bm25.query(wanted.text)
        if query is None:
            return ()
        with translated(self._collection.clock):
            await self._collection.prepare()
            found = await self._collection.run(
                self._collection.client.query_points(
                    self._collection.name,
                    query=query,
                    using=points.VECTOR,
                    limit=wanted.limit,
                    query_filter=points.visible_to(wanted.tenant, wanted.filters),
                    with_payload=True,
                )
            )
        try:
            return tuple(map(points.make_passage, found.points))
        except ValueError as error:
            raise Retry(f"the index holds a point that is no passage: {error}", code="index_error") from error

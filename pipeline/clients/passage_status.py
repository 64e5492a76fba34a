"""What the index holds, for whoever operates it: figures by source, and the state of every document for an audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection
from pipeline.clients.qdrant_failures import translated
from pipeline.core.audit_ports import Key

PAGE = 1_000
"""Points per request."""
MOST_SOURCES = 1_000
"""The most sources that are told apart."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source: its documents, those removed whose marks are kept, and how new the newest state of any of them is.

    `version` counts removals, too; `emptied` is up to which version all of it was removed.
    """

    documents: int = 0
    removed: int = 0
    version: int | None = None
    committed_at_ms: int | None = None
    emptied: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole index: all points, those that are found (chunks), those that keep order (marks), and the sources."""

    points: int
    chunks: int
    marks: int
    sources: Mapping[str, SourceStatus] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """One point as it was read."""

    id: str
    payload: Mapping[str, Any]

    @property
    def stamp(self) -> str | None:
        """What any write of it changes; None where it has none."""
        stamp = self.payload.get(points.STAMP)
        return stamp if isinstance(stamp, str) else None


class PassageCensus:
    """Counts and lists what a collection holds. Raises Defer where the index is away, Retry where it errs."""

    def __init__(self, collection: Collection) -> None:
        """Ask `collection`."""
        self._collection = collection

    async def status(self) -> Status:
        """Count everything. Figures are read one after the other, so that under load they may differ a little."""
        with translated(self._collection.clock):
            await self._collection.prepare()
            marks = await self._collection.count(points.of_kind(points.OF_DOCUMENT))
            emptied = await self._collection.count(points.of_kind(points.OF_SOURCE))
            return Status(
                points=await self._collection.count(None),
                chunks=await self._collection.count(points.of_kind(points.OF_CHUNK)),
                marks=marks + emptied,
                sources={name: await self._source(name) for name in await self._names()},
            )

    async def keys(self, source: str) -> AsyncIterator[Key]:
        """List the documents of a source, removed ones included, in no order that means anything."""
        told = [points.DOCUMENT, points.VERSION, points.CONTENT, points.DELETED]
        async for page in self.scroll(points.of_kind(points.OF_DOCUMENT, source), told):
            for payload in (one.payload for one in page):
                if points.DOCUMENT not in payload:  # somebody altered it
                    continue
                yield Key(
                    document=payload[points.DOCUMENT],
                    version=payload.get(points.VERSION, 0),
                    hash=payload.get(points.CONTENT, ""),
                    deleted=payload.get(points.DELETED, False),
                )

    async def scroll(
        self, wanted: models.Filter, payload: bool | list[str], start: models.ExtendedPointId | None = None
    ) -> AsyncIterator[Sequence[Stored]]:
        """Read points by pages, from `start` on; of their payloads all, or what is named."""
        place, offset = self._collection, start
        while True:
            with translated(place.clock):
                await place.prepare()
                page, offset = await place.run(
                    place.client.scroll(
                        place.name, scroll_filter=wanted, limit=PAGE, offset=offset, with_payload=payload
                    )
                )
            yield [Stored(str(one.id), one.payload or {}) for one in page]
            if offset is None:
                return

    async def _names(self) -> list[str]:
        place = self._collection
        marked = models.Filter(
            should=[points.of_kind(points.OF_DOCUMENT), points.of_kind(points.OF_SOURCE)],
        )
        found = await place.run(
            place.client.facet(place.name, points.SOURCE, facet_filter=marked, limit=MOST_SOURCES, exact=True)
        )
        return sorted(str(hit.value) for hit in found.hits)

    async def _source(self, name: str) -> SourceStatus:
        marked, gone = points.of_kind(points.OF_DOCUMENT, name), points.removed(name)
        total, removed = await self._collection.count(marked), await self._collection.count(gone)
        emptied = await self._newest(points.of_kind(points.OF_SOURCE, name), points.VERSION)
        seen = [await self._newest(marked, points.VERSION), emptied]
        return SourceStatus(
            documents=total - removed,
            removed=removed,
            version=max((one for one in seen if one is not None), default=None),
            committed_at_ms=await self._newest(marked, points.COMMITTED),
            emptied=emptied,
        )

    async def _newest(self, wanted: models.Filter, name: str) -> int | None:
        place = self._collection
        order = models.OrderBy(key=name, direction=models.Direction.DESC)
        found, _ = await place.run(
            place.client.scroll(place.name, scroll_filter=wanted, limit=1, order_by=order, with_payload=[name])
        )
        return int((found[0].payload or {})[name]) if found else None

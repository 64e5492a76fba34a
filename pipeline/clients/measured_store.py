"""Measures what the index takes in, from outside, so that no store has to."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.index_ports import Chunk, Indexed, PassageStore
from pipeline.core.payloads import Document
from pipeline.core.ports import Clock
from pipeline.telemetry.metrics import IndexMetrics


class MeasuredStore:
    """A store whose changes are counted by source, and timed since their commit at the source."""

    def __init__(self, store: PassageStore, metrics: IndexMetrics, clock: Clock) -> None:
        """Measure `store`."""
        self._store = store
        self._metrics = metrics
        self._clock = clock

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Replace a document's chunks; see the port."""
        return self._count(document, await self._store.replace(document, chunks))

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port. Where no text is known nothing is counted."""
        indexed = await self._store.keep(document)
        return None if indexed is None else self._count(document, indexed)

    async def remove(self, document: Document) -> Indexed:
        """Remove a document; see the port."""
        return self._count(document, await self._store.remove(document))

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove a source's documents; see the port. When it was committed is not told."""
        indexed = await self._store.empty(source, version)
        self._add(source, indexed)
        return indexed

    def _count(self, document: Document, indexed: Indexed) -> Indexed:
        self._add(document.source, indexed)
        # Once more the same changes nothing: days later, in a replay, it would pass for a state that took days.
        if document.committed_at_ms is not None and (indexed.written or indexed.removed):
            self._metrics.of(document.source).searchable(document.committed_at_ms / 1000, self._clock())
        return indexed

    def _add(self, source: str, indexed: Indexed) -> None:
        metrics = self._metrics.of(source)
        metrics.stale.inc(indexed.stale)
        metrics.tokens.inc(indexed.tokens)
        metrics.written.inc(indexed.written)
        metrics.kept.inc(indexed.kept)
        metrics.removed.inc(indexed.removed)

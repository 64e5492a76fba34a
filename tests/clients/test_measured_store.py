"""Tests of pipeline/clients/measured_store.py."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.clients.measured_store import MeasuredStore
from pipeline.core.errors import Defer
from pipeline.core.index_ports import Chunk, Indexed
from pipeline.core.payloads import Document
from pipeline.devkit.fakes import FakeIndex
from pipeline.telemetry.metrics import IndexMetrics

NOW = 1_800_000_000.0
TEXT = (Chunk(0, "one"), Chunk(1, "two"))


class Bench:
    """A measured index in memory, at a time that stands still."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.index = FakeIndex()
        self.store = MeasuredStore(self.index, IndexMetrics(self.registry), lambda: NOW)

    def value(self, name: str, source: str = "docs", **labels: str) -> float | None:
        """Read a sample."""
        return self.registry.get_sample_value(f"pipeline_index_{name}", {"source": source, **labels})

    def chunks(self, source: str = "docs") -> list[float | None]:
        """Read how many were written, kept and removed."""
        return [self.value("chunks_total", source, change=change) for change in ("written", "kept", "removed")]


def document(version: int, ago: float | None = None, **more: Any) -> Document:
    """Make a state of a document that was committed so many seconds ago."""
    committed = None if ago is None else int((NOW - ago) * 1000)
    told: dict[str, Any] = {"source": "docs", "id": "1", "tenant": "acme", "title": "t", "body": "b", **more}
    return Document(**told, version=version, committed_at_ms=committed)


async def test_chunks_are_counted_by_what_became_of_them() -> None:
    """Written, kept and removed ones, and the changes that came too late, of whichever call."""
    bench = Bench()
    assert await bench.store.replace(document(2), TEXT) == Indexed(written=2)
    assert await bench.store.replace(document(3), TEXT[:1]) == Indexed(kept=1, removed=1)
    assert await bench.store.replace(document(1), TEXT) == Indexed(stale=True)
    assert await bench.store.keep(document(4, body_kept=True)) == Indexed(kept=1)
    assert await bench.store.remove(document(5, deleted=True)) == Indexed(removed=1)
    await bench.store.replace(document(6), TEXT)
    assert await bench.store.empty("docs", 9) == Indexed(removed=2)
    assert (bench.chunks(), bench.value("stale_changes_total")) == ([4, 2, 4], 1)


async def test_tokens_are_added_up() -> None:
    """What dense embeddings took, as the store tells it."""

    class Dear(FakeIndex):
        async def replace(self, document: Document, chunks: Any) -> Indexed:
            return Indexed(written=len(chunks), tokens=7)

    registry = CollectorRegistry()
    store = MeasuredStore(Dear(), IndexMetrics(registry), lambda: NOW)
    for version in (1, 2):
        await store.replace(document(version), TEXT)
    assert registry.get_sample_value("pipeline_index_embedding_tokens_total", {"source": "docs"}) == 14


async def test_freshness_is_from_the_commit_until_it_can_be_found() -> None:
    """Of writes and removals whose commit is known; a source whose clock runs ahead is never fresher than now."""
    bench = Bench()
    await bench.store.replace(document(1, 0.25), TEXT)
    await bench.store.replace(document(2), TEXT[:1])
    await bench.store.remove(document(3, 2.0, deleted=True))
    await bench.store.replace(document(4, -60.0), TEXT)
    assert (bench.value("freshness_seconds_count"), bench.value("freshness_seconds_sum")) == (3, 2.25)
    assert bench.value("freshness_seconds_bucket", le="0.3") == 2


async def test_the_newest_commit_never_goes_back() -> None:
    """Older states of other documents are searchable later, and the newest one stays what it is."""
    bench = Bench()
    for ago in (50, 10, 30):
        await bench.store.replace(_another(ago), TEXT)
    assert bench.value("newest_commit_timestamp_seconds") == NOW - 10


def _another(ago: int) -> Document:
    return document(1, ago).model_copy(update={"id": f"{ago}"})


async def test_a_replay_makes_nothing_look_old() -> None:
    """What is stale or there already was searchable long ago: neither is a sample of freshness."""
    bench = Bench()
    await bench.store.replace(document(2, 1.0), TEXT)
    await bench.store.replace(document(1, 86_400.0), TEXT)
    await bench.store.replace(document(2, 1.0), TEXT)
    await bench.store.keep(document(2, 1.0, body_kept=True))
    assert (bench.value("freshness_seconds_count"), bench.value("freshness_seconds_sum")) == (1, 1.0)


async def test_what_cannot_be_stored_is_not_counted() -> None:
    """A trouble passes as it is; so does the answer that no text is known."""
    bench = Bench()
    bench.index.troubles.append(Defer("down", until=NOW + 1))
    with pytest.raises(Defer, match="down"):
        await bench.store.replace(document(1, 1.0), TEXT)
    assert await bench.store.keep(document(1, 1.0, body_kept=True)) is None
    assert bench.value("freshness_seconds_count") is None
    assert bench.chunks() == [None, None, None]


async def test_whoever_makes_up_sources_fills_one_label_only() -> None:
    """Beyond a hundred they are counted together."""
    bench = Bench()
    for number in range(130):
        await bench.store.replace(document(1).model_copy(update={"source": f"s{number}"}), TEXT)
    labels = {sample.labels["source"] for metric in bench.registry.collect() for sample in metric.samples}
    assert labels == {*(f"s{number}" for number in range(100)), "other"}
    assert bench.chunks("other") == [60, 0, 0]

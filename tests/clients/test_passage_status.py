"""Tests of pipeline/clients/passage_status.py: what an operator and an audit are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.clients import passage_status
from pipeline.clients.passage_status import SourceStatus, Status
from tests.clients.qdrant_opened import opened
from tests.contracts.passage_index_contract import OPENING, RETURNS, chunks, document

pytestmark = pytest.mark.local


@pytest.mark.parametrize("kind", ["embedded", "remote"])
async def test_the_index_tells_what_it_holds(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points, and by source the documents, the newest version and commit, removals included; and each document."""
    monkeypatch.setattr(passage_status, "PAGE", 2)
    async with opened(kind, tmp_path) as index:
        assert await index.status() == Status(points=0, chunks=0, marks=0, sources={})
        await index.replace(document(7, committed_at_ms=7_000), chunks(OPENING, RETURNS))
        await index.replace(document(8, name="post", committed_at_ms=8_000), chunks(OPENING))
        await index.remove(document(9, name="gone", committed_at_ms=9_000))
        await index.replace(document(1, source="forum"), chunks(OPENING))
        await index.empty("forum", 3)
        status = await index.status()
        keys = [key async for key in index.keys("handbook")]
        assert [key async for key in index.keys("forum")] == []
    assert status == Status(
        points=7,
        chunks=3,
        marks=4,
        sources={
            "handbook": SourceStatus(documents=2, removed=1, version=9, committed_at_ms=9_000),
            "forum": SourceStatus(version=3, emptied=3),
        },
    )
    assert sorted((key.document, key.version, key.deleted) for key in keys) == [
        ("gone", 9, True),
        ("post", 8, False),
        ("shop", 7, False),
    ]
    assert {len(key.hash) for key in keys} == {32}

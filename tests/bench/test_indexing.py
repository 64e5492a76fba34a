"""What P9 is measured with: nothing is written but what the stage writes, and nothing is timed but what it does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.clients.passage_live import LivePassages
from pipeline.core.payloads import Document
from pipeline.devkit.fakes import FakeRereads
from pipeline.stages.chunking import chunk
from pipeline.stages.index import Index
from tests.bench.failure import Failed
from tests.bench.freshness import Watch
from tests.bench.index_stage import COLLECTION, TENANT, Remembering, opened_index, prose
from tests.bench.indexing import Stretch
from tests.clients.qdrant_filled import filled
from tests.stages.made import NOW_MS, context, event

pytestmark = pytest.mark.local


async def test_bare_upserts_leave_the_index_as_the_stage_does(tmp_path: Path) -> None:
    """The batches that were noted hold all points; a text is embedded once, over all rounds."""
    body = prose(random.Random(1), 20)
    document = Document(source="documents", id="row", tenant=TENANT, title="Row", body=body, version=1)
    bm25, stretch = Remembering(), Stretch(1)
    async with opened_index(tmp_path / "ours") as ours, opened_index(tmp_path / "bare") as bare:
        keeper = ours.live(bm25)
        await stretch.around(Index(keeper, FakeRereads()))(event(document, type=""), context())
        for batch in ours.client.batches:
            await bare.run(bare.client.upsert(COLLECTION, batch, wait=True))
        assert (
            await (await keeper.current()).place.count(None)
            == await bare.collection.count(None)
            == len(chunk(body)) + 1
        )
    assert stretch.handled.is_set()
    assert stretch.pace().rate > 0
    assert bm25.document("Row", "text") is bm25.document("Row", "text")


async def test_an_edit_counts_when_a_query_finds_it() -> None:
    """The moment is noted by the word that its text begins with."""
    document = Document(source="documents", id="row", tenant=TENANT, title="", body="row1x2 opens.", version=1)
    async with filled([]) as place:
        watch = Watch(LivePassages(place))
        await watch.around(Index(watch.index, FakeRereads()))(event(document, type=""), context())
        (times,) = await watch.until(["row1x2"], 1.0)
        with pytest.raises(Failed, match="1 of 2 edits were not found within 0 s"):
            await watch.until(["row1x2", "row1x3"], 0.0)
    assert times.written == NOW_MS / 1000

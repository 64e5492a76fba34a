"""The changes of a database as Debezium wrote them, read by `index` as the program opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline import wiring
from pipeline.broker.topics import TopicSpec
from pipeline.core import names
from pipeline.core.payloads import Passage, Request, RetrievedContext
from pipeline.core.record import Outgoing
from pipeline.devkit.kafka import Broker
from tests.system.captured import FILES, changes, write
from tests.system.site import TABLES, Site, Stage, site

pytestmark = [pytest.mark.kafka, pytest.mark.system]


async def _found(place: Site, asked: Mapping[str, str]) -> dict[str, Sequence[Passage]]:
    """Ask questions, each of its tenant, and return the passages that `retrieve` found for each."""
    topic = names.topic(place.prefix, "contexts", "interactive")
    found: dict[str, Sequence[Passage]] = {}
    async with place.desk() as desk:
        for text, tenant in asked.items():
            await desk.request(Request(type="quick_answer", input=text, tenant=tenant))
        async with asyncio.timeout(60), wiring.open_tail(place.configured, [topic], from_start=True) as records:
            while not asked.keys() <= found.keys():
                record = await anext(records)
                context = await desk.codec.decode("contexts", RetrievedContext, record.value or b"")
                found[context.input] = context.passages
    return {text: found[text] for text in asked}


async def _late(place: Site, index: Stage, topic: str, records: Sequence[Outgoing]) -> None:
    """Tell of the truncation when all is there already, and then everything once more."""
    await write(place, changes(topic, "12-truncate"))
    await place.idle("index")
    written = await index.metric("pipeline_index_chunks_total", 'change="written"')
    await write(place, records)
    await place.idle("index")
    left = await _found(place, {"What is there of opening hours, large bodies, versions?": "acme"})
    assert {one.document for passages in left.values() for one in passages} <= {"doc-0001"}
    assert await index.metric("pipeline_index_chunks_total", 'change="written"') == written


@pytest.mark.within(120)
async def test_what_a_database_says_is_what_can_be_found(kafka: Broker, tmp_path: Path) -> None:
    """Snapshot, inserts, updates, a deletion, a changed key, an id used again: the newest state of each, no other.

    The truncation before that last insert comes after it, and all once more: neither changes what is newer.
    """
    topic = f"app.{uuid4().hex[:8]}.documents"
    (tmp_path / "tables.yaml").write_text(TABLES.format(topic=topic))
    async with site(kafka, tmp_path, PIPELINE_TABLES=str(tmp_path / "tables.yaml")) as place:
        async with wiring.opened_admin(place.configured, lambda _: None) as admin:
            (missing,) = await wiring.check_topics(place.configured, admin)
            assert missing.startswith(f"{topic} does not exist")
            await admin.create_topics([TopicSpec(topic, 3)])
            assert await wiring.check_topics(place.configured, admin) == []
        records = changes(topic, *FILES)
        await write(place, records)
        async with place.desk() as desk:
            assert await desk.lag("index") == len(records)
        started = await place.start("preprocess", "retrieve", "index")
        await place.idle("index")

        found = await _found(
            place,
            {
                "When are the opening hours?": "acme",
                "May goods be returned, as the return policy says?": "acme",
                "What does the first one say, v1, v2 or v3?": "acme",
                "Which large body has a new title?": "globex",
                "Is there a Unicode body?": "acme",
            },
        )
        newest = {(passage.document, passage.version): passage for passages in found.values() for passage in passages}
        # The positions in the log at which each row that is still there was changed last.
        assert {name: version for name, version in newest if name != "doc-0004"} == {
            "doc-0001": 26759584,
            "doc-0002": 26547784,
            "doc-0030": 26755448,
        }
        assert newest["doc-0001", 26759584].text == "Back again."
        assert newest["doc-0030", 26755448].text == "v3"
        assert {one.title for one in found["Which large body has a new title?"]} == {"Large body, new title"}
        assert await started.metric("pipeline_records_ignored_total") == 4
        assert await started.metric("pipeline_index_freshness_seconds_count") > 0
        await _late(place, started, topic, records)
        async with place.desk() as desk:
            assert (await desk.lag("index"), await desk.dead()) == (0, 0)

"""A table's changes, read again from the beginning of their topic."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from qdrant_client import QdrantClient

from pipeline import wiring
from pipeline.broker.topics import TopicSpec
from pipeline.core import names
from pipeline.devkit.kafka import Broker
from tests.system.captured import FILES, changes, write
from tests.system.site import TABLES, Site, site

pytestmark = [pytest.mark.kafka, pytest.mark.system]

PARTITIONS = 3
PROBE = "dimension"
"""What a process embeds at its start, to learn the length of the vectors."""


def _points(place: Site) -> Mapping[str, object]:
    """Read the whole index; nobody else may have it open."""
    client = QdrantClient(path=str(place.folder / ".run" / "qdrant"))
    try:
        held, _ = client.scroll(f"{place.prefix}-passages", limit=10_000, with_vectors=True)
        return {str(one.id): (one.payload, one.vector) for one in held}
    finally:
        client.close()


async def _begin_anew(kafka: Broker, group: str, topic: str) -> None:
    """Let a group that has no members read the topic from its beginning."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    for future in admin.alter_consumer_group_offsets([wanted]).values():
        await asyncio.to_thread(future.result)


def _embedded(place: Site) -> Mapping[str, int]:
    return {one.hash: one.times for one in place.simulator.texts.all if one.text != PROBE}


async def _index(place: Site) -> Collection[float]:
    """Let `index` read to the end and leave; returns how many records it settled, and chunks it wrote or removed."""
    index = await place.start("index")
    await place.idle("index")
    read = await index.metric("pipeline_records_settled_total", 'stage="index"')
    changed = sum(
        [await index.metric("pipeline_index_chunks_total", f'change="{one}"') for one in ("written", "removed")]
    )
    assert await index.process.terminate() == 0
    return read, changed


@pytest.mark.within(120)
async def test_to_read_the_whole_topic_again_changes_nothing_and_embeds_nothing(kafka: Broker, tmp_path: Path) -> None:
    """Every record is read a second time, in an order of its own by partitions: each point and each vector stays as it
    was, no chunk is written, and no text is embedded.
    """
    topic = f"app.{uuid4().hex[:8]}.documents"
    (tmp_path / "tables.yaml").write_text(TABLES.format(topic=topic))
    tables = str(tmp_path / "tables.yaml")
    async with site(kafka, tmp_path, PIPELINE_TABLES=tables, EMBEDDING_MODEL="simulated") as place:
        async with wiring.opened_admin(place.configured, lambda _: None) as admin:
            await admin.create_topics([TopicSpec(topic, PARTITIONS)])
        records = changes(topic, *FILES, "12-truncate", "13-same-key-reinserted")
        await write(place, records)
        read, changed = await _index(place)
        assert read == len(records)
        assert changed
        before, embedded = _points(place), _embedded(place)
        assert embedded
        await _begin_anew(kafka, names.group(place.prefix, "index"), topic)
        async with place.desk() as desk:
            assert await desk.lag("index") == len(records)
        assert await _index(place) == (len(records), 0)
        assert _points(place) == before
        assert _embedded(place) == embedded
        async with place.desk() as desk:
            assert await desk.dead() == 0

"""What a real broker tells of ends and commits is what freshness is told by."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.broker.admin import TopicSpec, open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.clients.passage_freshness import Foreign, SettledFreshness
from pipeline.devkit.kafka import Broker

pytestmark = pytest.mark.kafka


async def test_an_index_has_caught_up_once_its_group_has_committed(kafka: Broker) -> None:
    """Nothing written: yes. Written, copied to a tier: no. Committed in both: yes, though more is written by then."""
    prefix, server = f"fresh{time.time_ns()}", {"bootstrap.servers": kafka.bootstrap_servers}
    source, tier = f"{prefix}.documents", f"{prefix}.index.retry.10s"
    producer = Producer(server)
    group = Consumer({**server, "group.id": f"{prefix}.index"})
    async with open_admin(KafkaConfig(server)) as admin:
        await admin.create_topics([TopicSpec(topic, 2, {}) for topic in (source, tier)])
        index = SettledFreshness(admin, f"{prefix}.index", [source], [tier], Foreign(), time.time)
        assert await index.caught_up("handbook", 7, "early")
        for topic in (source, tier):
            producer.produce(topic, b"{}", partition=1)
        assert producer.flush(30) == 0
        assert not await index.caught_up("handbook", 7, "me")
        group.commit(offsets=[TopicPartition(source, 1, 1)], asynchronous=False)
        assert not await index.caught_up("handbook", 7, "me")
        group.commit(offsets=[TopicPartition(tier, 1, 1)], asynchronous=False)
        producer.produce(source, b"{}", partition=0)
        assert producer.flush(30) == 0
        assert await index.caught_up("handbook", 7, "me")
        assert not await index.caught_up("handbook", 7, "late")
    group.close()

"""Reading topics without a group: every partition, from now or from the beginning, nothing committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from pipeline.broker.client import new_client
from pipeline.broker.config import KafkaConfig
from pipeline.broker.reading import records_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Record
from pipeline.telemetry import logs

BATCH = 500
SLICE_SECONDS = 0.1
REQUEST_SECONDS = 15.0


@asynccontextmanager
async def open_tail(
    config: KafkaConfig, topics: Sequence[str], *, from_start: bool = False
) -> AsyncIterator[AsyncIterator[Record]]:
    """Yield an endless reader of `topics`; what is written after the block was entered is in it for certain.

    Order holds within a partition only. Raises ConfigurationError where a topic does not exist.
    """
    client = new_client(Consumer, config, {**config.consumer("tail"), "enable.partition.eof": False})
    try:
        await asyncio.to_thread(_assign, client, topics, from_start)
        yield _records(client)
    finally:
        await asyncio.to_thread(client.close)


def _assign(client: Consumer, topics: Sequence[str], from_start: bool) -> None:
    known = client.list_topics(timeout=REQUEST_SECONDS).topics
    missing = [topic for topic in topics if topic not in known]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} does not exist: run `pipeline topics create`")
    parts = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
    for part in parts:
        # Named now: OFFSET_END would be looked up later, and skip what is written until then.
        end = OFFSET_BEGINNING if from_start else client.get_watermark_offsets(part, timeout=REQUEST_SECONDS)[1]
        part.offset = end
    client.assign(parts)


async def _records(client: Consumer) -> AsyncIterator[Record]:
    while True:
        for record in records_of(await asyncio.to_thread(client.consume, BATCH, SLICE_SECONDS), _passing):
            yield record


def _passing(error: KafkaError, _: Message | None = None) -> None:
    """Wait on: the client reports what hinders it and mends it by itself."""
    logs.get().debug(error.str(), action="tail_event", code=error.name())

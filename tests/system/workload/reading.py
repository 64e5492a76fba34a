"""Reading topics from their beginning to their end, without a group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.broker.reading import records_of
from pipeline.core.record import Commit, Partition, Record

READ_SECONDS = 60.0
_BATCH = 1000
_ANSWER_SECONDS = 2.0

Isolation = Literal["read_committed", "read_uncommitted"]


@dataclass(frozen=True, slots=True)
class Log:
    """What a reader found: all records, and where each partition ended for it."""

    records: Sequence[Record]
    ends: Mapping[Partition, int]


def read(servers: str, topics: Sequence[str], isolation: Isolation) -> Log:
    """Read all of `topics`. Raises TimeoutError where an end is not reached within a minute."""
    client = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "the checker's, which commits nothing",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "enable.partition.eof": True,
        }
    )
    try:
        known = client.list_topics(timeout=READ_SECONDS).topics
        parts = [TopicPartition(topic, number, 0) for topic in topics for number in known[topic].partitions]
        client.assign(parts)
        return _to_the_end(client, len(parts))
    finally:
        client.close()


class Stand:
    """Asks where groups stand, metadata included. Blocks. One client for each group, which never joins it."""

    def __init__(self, servers: str) -> None:
        """Ask the broker at `servers`."""
        self._servers = servers
        self._clients: dict[str, Consumer] = {}

    def of(self, group: str, parts: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Return what `group` has committed, by partition. Raises KafkaException where nobody answers."""
        if group not in self._clients:
            self._clients[group] = Consumer({"bootstrap.servers": self._servers, "group.id": group, "log_level": 0})
        found = self._clients[group].committed([TopicPartition(*part) for part in parts], timeout=_ANSWER_SECONDS)
        return {
            Partition(part.topic, part.partition): Commit(part.offset, part.metadata or "")
            for part in found
            if part.error is None and part.offset >= 0
        }

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()


def _to_the_end(client: Consumer, parts: int) -> Log:
    records: list[Record] = []
    ends: dict[Partition, int] = {}

    def event(error: KafkaError, message: Message) -> None:
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        ends[Partition(message.topic() or "", message.partition() or 0)] = message.offset() or 0

    deadline = time.monotonic() + READ_SECONDS
    while len(ends) < parts:
        if time.monotonic() > deadline:
            raise TimeoutError(f"read the ends of {len(ends)} of {parts} partitions within {READ_SECONDS:g} s")
        records += records_of(client.consume(_BATCH, 0.1), event)
    return Log(records, ends)

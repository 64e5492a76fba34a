"""A broker in memory, for tests: one event loop, no threads, nothing random, fit for virtual time.

It promises what the contract suite asks of both brokers. Beyond that it forgets everything with its process, keeps all
in one copy, and knows no compaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from confluent_kafka import murmur2

from pipeline.broker.config import GroupProtocol
from pipeline.broker.memory_clients import MemoryConsumer, MemoryProducer
from pipeline.broker.memory_group import Group
from pipeline.broker.memory_log import Log
from pipeline.broker.memory_reader import MemoryReader
from pipeline.broker.memory_transactions import Cluster, Coordinator, MemoryTransactions
from pipeline.broker.topics import MAX_MESSAGE_BYTES, Creation, TopicSpec, TopicState
from pipeline.broker.verdicts import NotDelivered
from pipeline.core.ports import Clock, RecordTooLarge
from pipeline.core.record import Commit, Outgoing, Partition, Position, Record

# Kafka's default for `max.message.bytes`, and about what a batch of one record adds to it.
_MAX_MESSAGE_BYTES = 1_048_588
_OVERHEAD_BYTES = 70


@dataclass(frozen=True, slots=True)
class MemoryTimes:
    """How long things take, in seconds. `session`: after this a killed member is missed. `patience`: a member that has
    not fetched for so long is put out of its group. `acknowledge`: from a send to its acknowledgement. `transact`: each
    of a transaction's three steps. `abandon`: after this a transaction is aborted whose producer says nothing more."""

    session: float = 10.0
    patience: float = 300.0
    acknowledge: float = 0.0
    transact: float = 0.0
    abandon: float = 10.0


@dataclass(slots=True)
class _Topic:
    spec: TopicSpec
    logs: list[Log]
    turn: int = 0


class MemoryBroker:
    """Topics, groups and clients. The methods that `Admin` has too answer as it does."""

    def __init__(self, clock: Clock = time.time, times: MemoryTimes | None = None) -> None:
        """Begin empty. `clock` stamps the records."""
        self.times = times or MemoryTimes()
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._consumers: list[MemoryConsumer] = []
        self._readers: list[MemoryReader] = []
        self._coordinator = Coordinator()

    # -------------------------------------------------------------- clients

    def producer(self) -> MemoryProducer:
        """A new producer."""
        return MemoryProducer(self)

    def consumer(self, group: str, patience: float | None = None) -> MemoryConsumer:
        """A new consumer, which becomes a member of `group` when it subscribes. `patience` as in `MemoryTimes`."""
        consumer = MemoryConsumer(self, group, len(self._consumers), patience or self.times.patience)
        self._consumers.append(consumer)
        return consumer

    def reader(self, *, committed: bool = False) -> MemoryReader:
        """A new reader; with `committed`, it sees and counts no more than a group does."""
        reader = MemoryReader(self, committed=committed)
        self._readers.append(reader)
        return reader

    def transactions(self, group: str, transactional_id: str, through: Cluster | None = None) -> MemoryTransactions:
        """A transactional producer for the offsets of `group`, which reaches this broker `through` what is given."""
        return MemoryTransactions(through or self, self._coordinator, self.group(group), transactional_id)

    def kill(self, consumer: MemoryConsumer) -> None:
        """End a consumer as `kill -9` does: nothing is committed and nobody told. The group misses it after a while."""
        consumer.die()
        asyncio.get_running_loop().call_later(self.times.session, self.group(consumer.group).leave, consumer.number)

    # -------------------------------------------------------------- records

    def append(self, record: Outgoing, transaction: object = None) -> Position:
        """Write a record. Raises NotDelivered or RecordTooLarge as the real broker answers.

        As part of a `transaction` it is hidden from readers, as all that follows it, until `end` says more.
        """
        topic = self._topics.get(record.topic)
        if topic is None:
            raise NotDelivered(f"{record.topic}: there is no such topic")
        if record.partition is not None and not 0 <= record.partition < len(topic.logs):
            raise NotDelivered(f"{record.topic}/{record.partition}: there is no such partition")
        limit = int(topic.spec.config.get(MAX_MESSAGE_BYTES, _MAX_MESSAGE_BYTES))
        if _size(record) > limit:
            raise RecordTooLarge(f"{record.topic}: {_size(record)} bytes are over the limit of {limit}")
        number = self._choose(topic, record)
        log = topic.logs[number]
        stamp = int(self._clock() * 1000)
        position = Position(record.topic, number, log.high)
        log.append(Record(*position, record.key, record.value, record.headers, stamp), transaction)
        self._wake()
        return position

    def end(self, transaction: object, *, committed: bool) -> None:
        """End a transaction: a marker in every partition that it wrote to."""
        for topic_name, topic in self._topics.items():
            for number, log in enumerate(topic.logs):
                log.end(transaction, Partition(topic_name, number), committed=committed)
        self._wake()

    def read(self, name: Partition, offset: int, limit: int) -> Sequence[Record]:
        """Return up to `limit` records from `offset` on, which is inside the range; markers too, and what is open."""
        log = self._topics[name.topic].logs[name.number]
        return log.records[offset - log.low : offset - log.low + limit]

    def read_committed(self, name: Partition, offset: int, limit: int) -> tuple[Sequence[Record], int]:
        """Return up to `limit` records that are there for good, and the offset to read on from, past markers."""
        topic = self._topics.get(name.topic)
        if topic is not None and topic.logs[name.number].transactional:
            return topic.logs[name.number].scan(offset, limit)
        records = self.read(name, offset, limit)
        return records, offset + len(records)

    def range(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset that is kept and the next one to be written."""
        log = self._topics[name.topic].logs[name.number]
        return log.low, log.high

    def range_committed(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset that is kept and the last stable one: what stands there may be hidden yet."""
        log = self._topics[name.topic].logs[name.number]
        return log.low, log.stable

    def count(self, topic: str) -> int:
        """Count the partitions of a topic, 0 where it does not exist."""
        return len(self._topics[topic].logs) if topic in self._topics else 0

    def records(self, topic: str) -> Sequence[Record]:
        """Return what a reader of a topic is or will be given, partition by partition: for a test to look at."""
        return [record for log in self._topics[topic].logs for record in log.visible()]

    def trim(self, name: Partition, below: int) -> None:
        """Delete the records below an offset, as retention does."""
        self._topics[name.topic].logs[name.number].trim(below)

    def _choose(self, topic: _Topic, record: Outgoing) -> int:
        if record.partition is not None:
            return record.partition
        if record.key is not None:
            # librdkafka's own function, the one behind `partitioner=murmur2_random`.
            return int(murmur2(record.key, len(topic.logs)))
        # Kafka chooses at random here. Taking turns spreads as well and is the same in every run.
        topic.turn += 1
        return (topic.turn - 1) % len(topic.logs)

    def _wake(self) -> None:
        for consumer in self._consumers:
            consumer.wake()
        for reader in self._readers:
            reader.wake()

    # -------------------------------------------------------------- groups

    def group(self, name: str) -> Group:
        """The group of that name, made when it is first asked for."""
        if name not in self._groups:
            self._groups[name] = Group(self._partitions)
        return self._groups[name]

    def _partitions(self) -> Iterable[Partition]:
        return (Partition(name, number) for name, topic in self._topics.items() for number in range(len(topic.logs)))

    # -------------------------------------------------------------- what Admin has too

    async def wait_for_broker(self, timeout: float, progress: Callable[[str], None]) -> None:
        """Return at once: it is here."""

    async def group_protocol(self) -> GroupProtocol:
        """Partitions move as under KIP-848."""
        return "consumer"

    async def create_topics(self, specs: Iterable[TopicSpec]) -> Mapping[str, Creation]:
        """Create the topics that are not there; those that are stay as they are."""
        done: dict[str, Creation] = {}
        for spec in specs:
            done[spec.name] = "present" if spec.name in self._topics else "created"
            self._topics.setdefault(spec.name, _Topic(spec, [Log() for _ in range(spec.partitions)]))
        for group in self._groups.values():
            group.share()
        for reader in self._readers:
            reader.wake()
        return done

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics with all their records; those that are not there are passed over."""
        for name in names:
            self._topics.pop(name, None)
        for group in self._groups.values():
            group.share()

    async def describe_topics(self, names: Iterable[str]) -> Mapping[str, TopicState]:
        """Return partitions and configuration of those topics that exist; only what was set of the latter."""
        found = {name: self._topics[name] for name in names if name in self._topics}
        return {name: TopicState(name, len(topic.logs), topic.spec.config) for name, topic in found.items()}

    async def partitions(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Count the partitions of those topics that exist."""
        return {name: self.count(name) for name in topics if self.count(name)}

    async def partitions_under(self, beginning: str) -> Mapping[str, int]:
        """Count the partitions of all topics whose names begin so."""
        return {name: self.count(name) for name in self._topics if name.startswith(beginning)}

    async def grow_topic(self, topic: str, partitions: int) -> None:
        """Raise the number of a topic's partitions; one that has as many stays as it is."""
        logs = self._topics[topic].logs
        logs += [Log() for _ in range(partitions - len(logs))]
        for group in self._groups.values():
            group.share()

    async def end_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return the next offset to be written of every partition of those topics that exist."""
        kept = ((name, self._topics[name].logs) for name in dict.fromkeys(topics) if name in self._topics)
        return {Partition(name, number): log.high for name, logs in kept for number, log in enumerate(logs)}

    async def begin_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return the oldest offset that is kept of every partition of those topics that exist."""
        kept = ((name, self._topics[name].logs) for name in dict.fromkeys(topics) if name in self._topics)
        return {Partition(name, number): log.low for name, logs in kept for number, log in enumerate(logs)}

    async def delete_records(self, below: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Delete the records below an offset of each partition, for good; returns the oldest offset that is left."""
        for name, offset in below.items():
            self.trim(name, offset)
        return {name: self.range(name)[0] for name in below}

    async def offsets_at(self, topics: Iterable[str], timestamp_ms: int) -> Mapping[Partition, int]:
        """Return the offset of the first record that was written at or after a time; where there is none, the end."""
        found = {}
        for name, end in (await self.end_offsets(topics)).items():
            records = self._topics[name.topic].logs[name.number].visible()
            found[name] = next((one.offset for one in records if one.timestamp_ms >= timestamp_ms), end)
        return found

    async def written_since(self, topics: Iterable[str], timestamp_ms: int) -> int:
        """Count the records of those topics from the first one that was written at or after `timestamp_ms`."""
        kept = [self._topics[name].logs for name in set(topics) if name in self._topics]
        counts = (
            sum(1 for _ in dropwhile(lambda one: one.timestamp_ms < timestamp_ms, log.visible()))
            for logs in kept
            for log in logs
        )
        return sum(counts)

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return where `group` stands; partitions it never committed are left out."""
        return {name: commit.offset for name, commit in (await self.commits(group, topics)).items()}

    async def commits(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        """Return where `group` stands and what its commits say besides; partitions it never committed are left out."""
        wanted = set(topics)
        return {name: commit for name, commit in self.group(group).committed.items() if name.topic in wanted}

    async def members(self, group: str) -> Collection[str]:
        """Name the members of `group`."""
        return self.group(group).members

    async def lag(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return how many offsets `group` is behind in every partition; where it never was, all that is kept."""
        committed = await self.committed(group, topics)
        ends = await self.end_offsets(topics)
        return {name: max(end - committed.get(name, self.range(name)[0]), 0) for name, end in ends.items()}


def _size(record: Outgoing) -> int:
    headers = sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    return _OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"") + headers

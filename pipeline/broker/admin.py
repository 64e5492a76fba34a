"""What is asked of a cluster beside records: is it there, its topics, and how far groups are behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though its stubs do not say so
    AdminClient,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from pipeline.broker.client import new_client
from pipeline.broker.config import SERVERS, GroupProtocol, KafkaConfig, choose_protocol, variable_of
from pipeline.broker.groups import Groups
from pipeline.broker.identity import unstamped
from pipeline.broker.topics import Creation, TopicSpec, TopicState
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Commit, Partition

__all__ = ["Admin", "Creation", "TopicSpec", "TopicState", "open_admin"]

REQUEST_SECONDS = 15.0
IDS_SECONDS = 2.0
_ANSWER_SECONDS = 1.0
# A broker that shares a busy machine takes its time over hundreds of new partitions.
_APPEAR_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_COMMITTED_SECONDS = 5.0

_PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._NOENT,  # no leader is known
    KafkaError._TRANSPORT,
)
_MOVING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TIMED_OUT,
)
_OUR_MISTAKE = (
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
)


class Admin:
    """An admin client for the event loop: its calls wait elsewhere. Use `open_admin`.

    Errors: KafkaException where the cluster refuses a request, unless a method says otherwise.
    """

    def __init__(self, config: KafkaConfig) -> None:
        """Make the client, which connects in the background. Raises ConfigurationError where it refuses a property."""
        self._config = config
        self._reason = ""
        self._client = new_client(AdminClient, config, {**config.admin(), "error_cb": self._heard})
        self._groups = Groups(self._client)

    async def wait_for_broker(self, timeout: float, progress: Callable[[str], None]) -> None:
        """Wait until a broker answers; `progress` is told once a second what is waited for, and why.

        Raises ConfigurationError after `timeout` seconds, naming the address and the variables to look at.
        """
        begin = time.monotonic()
        while True:
            left = begin + timeout - time.monotonic()
            try:
                await self._metadata(max(min(left, _ANSWER_SECONDS), 0.1))
            except KafkaException as error:
                reason = self._reason or error.args[0].str()
            else:
                return
            waited = time.monotonic() - begin
            if waited >= timeout:
                raise ConfigurationError(
                    f"Kafka at {self._config.servers} did not answer within {timeout:g} s ({reason}): start it, correct"
                    f" {variable_of(SERVERS)}, or wait longer with PIPELINE_STARTUP_SECONDS"
                )
            progress(f"waiting for Kafka at {self._config.servers}, {waited:.0f} of {timeout:g} s: {reason}")
            await asyncio.sleep(min(_LOOK_SECONDS, timeout - waited))

    async def group_protocol(self) -> GroupProtocol:
        """Choose, by what the brokers say of themselves, how this project's groups agree; see `choose_protocol`."""
        return choose_protocol(self._config, await self._broker_config())

    # -------------------------------------------------------------- topics

    async def create_topics(self, specs: Iterable[TopicSpec]) -> Mapping[str, Creation]:
        """Create the topics that are not there, and wait until they can be used; those that are stay as they are.

        librdkafka's test broker has no controller to create topics, but makes every topic that is asked for; its number
        of partitions cannot be chosen.
        """
        wanted = {spec.name: spec for spec in specs}
        if not wanted:
            return {}
        before = await self._metadata()
        if not _has_controller(before):
            for name in wanted:
                await asyncio.to_thread(self._client.list_topics, name, timeout=REQUEST_SECONDS)
            await self._appear(dict.fromkeys(wanted, 1))
            return {name: "present" if name in before.topics else "created" for name in wanted}
        futures = self._client.create_topics(
            [_new_topic(spec) for spec in wanted.values()], request_timeout=REQUEST_SECONDS
        )
        done = {name: await _created(name, future) for name, future in futures.items()}
        await self._appear(dict.fromkeys(wanted, 1))
        return done

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics with all their records; those that are not there are passed over."""
        wanted = sorted(set(names))
        futures = self._client.delete_topics(wanted, request_timeout=REQUEST_SECONDS) if wanted else {}
        for future in futures.values():
            try:
                await asyncio.wrap_future(future)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise

    async def describe_topics(self, names: Iterable[str]) -> Mapping[str, TopicState]:
        """Return partitions and configuration of those topics that exist."""
        metadata = await self._metadata()
        counts = _usable(metadata, names)
        configs = await self._configs(ResourceType.TOPIC, sorted(counts)) if _has_controller(metadata) else {}
        return {name: TopicState(name, count, configs.get(name, {})) for name, count in counts.items()}

    async def partitions(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Count the partitions of those topics that exist."""
        return _usable(await self._metadata(), topics)

    async def partitions_under(self, beginning: str) -> Mapping[str, int]:
        """Count the partitions of all topics whose names begin so."""
        metadata = await self._metadata()
        return _usable(metadata, [name for name in metadata.topics if name.startswith(beginning)])

    def topic_ids(self, topics: Sequence[str]) -> Mapping[str, str]:
        """Return the ids (KIP-516), in base64url, of those topics that exist and can be asked for.

        Blocks for up to `IDS_SECONDS`: it is for other threads than the event loop's.
        """
        futures = self._client.describe_topics(TopicCollection(list(topics)), request_timeout=IDS_SECONDS)
        found = {}
        for name, future in futures.items():
            with contextlib.suppress(KafkaException):
                found[name] = str(future.result().topic_id).replace("+", "-").replace("/", "_")
        return found

    async def grow_topic(self, topic: str, partitions: int) -> None:
        """Raise a topic's number of partitions, and wait until they can be used; one that has as many stays as it is.

        Raises ConfigurationError where the cluster's policy forbids it.
        """
        if (await self.partitions([topic])).get(topic, 0) >= partitions:
            return
        future = self._client.create_partitions([NewPartitions(topic, partitions)], request_timeout=REQUEST_SECONDS)[
            topic
        ]
        try:
            await asyncio.wrap_future(future)
        except KafkaException as error:
            if error.args[0].code() in _OUR_MISTAKE:
                raise ConfigurationError(f"topic {topic} cannot grow to {partitions}: {error.args[0].str()}") from None
            raise
        await self._appear({topic: partitions})

    # -------------------------------------------------------------- offsets

    async def end_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return the next offset to be written of every partition of those topics that exist."""
        return await self._offsets(topics, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # the client has no type here

    async def begin_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return the oldest offset that is kept of every partition of those topics that exist."""
        return await self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # the client has no type here

    async def delete_records(self, below: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Delete the records below an offset of each partition, for good; returns the oldest offset that is left.

        Raises ConfigurationError where the cluster does not let us: no right to, or a topic that keeps by key.
        """
        wanted = [TopicPartition(*name, offset) for name, offset in below.items()]
        futures = self._client.delete_records(wanted, request_timeout=REQUEST_SECONDS) if wanted else {}
        left = {}
        for part, future in futures.items():
            try:
                left[_name(part)] = (await asyncio.wrap_future(future)).low_watermark
            except KafkaException as error:
                raise ConfigurationError(
                    f"records of {part.topic}/{part.partition} cannot be deleted: {error.args[0].str()}"
                ) from None
        return left

    async def offsets_at(self, topics: Iterable[str], timestamp_ms: int) -> Mapping[Partition, int]:
        """Return the offset of the first record that was written at or after a time; where there is none, the end."""
        wanted = sorted(set(topics))
        found, ends = await asyncio.gather(
            self._offsets(wanted, OffsetSpec.for_timestamp(timestamp_ms)), self.end_offsets(wanted)
        )
        return {name: offset if offset >= 0 else ends.get(name, 0) for name, offset in found.items()}

    async def written_since(self, topics: Iterable[str], timestamp_ms: int) -> int:
        """Count the records of those topics from the first one that was written at or after `timestamp_ms`.

        By their offsets, so where transactions write, what was aborted counts, too, and the marker that ends each. For
        the flood guard that is near enough: it begins with this count, and the first record that lives sets it to 0.
        """
        wanted = sorted(set(topics))
        ends, begins = await asyncio.gather(
            self.end_offsets(wanted),
            self._offsets(wanted, OffsetSpec.for_timestamp(timestamp_ms)),
        )
        return sum(end - begins[name] for name, end in ends.items() if begins.get(name, -1) >= 0)

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return where `group` stands; partitions it never committed are left out."""
        return {name: commit.offset for name, commit in (await self.commits(group, topics)).items()}

    async def commits(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        """Return where `group` stands and what its commits say besides; partitions it never committed are left out."""
        counts = _usable(await self._metadata(), topics)
        wanted = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        parts = await asyncio.to_thread(self._committed, group, wanted) if wanted else []
        return {_name(part): Commit(part.offset, unstamped(part.metadata or "")) for part in parts if part.offset >= 0}

    async def members(self, group: str, seconds: float = REQUEST_SECONDS) -> Collection[str]:
        """Name the members of `group`: the ids that its coordinator gave them, or took from them (KIP-848)."""
        return await self._groups.members(group, seconds)

    async def lag(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        """Return how many offsets `group` is behind in every partition; where it never was, all that is kept."""
        wanted = sorted(set(topics))
        # Ends after commits: a record that is copied to a tier and committed in between would be counted nowhere.
        committed = await self.committed(group, wanted)
        ends, begins = await asyncio.gather(self.end_offsets(wanted), self.begin_offsets(wanted))
        return {name: max(end - committed.get(name, begins.get(name, 0)), 0) for name, end in ends.items()}

    # -------------------------------------------------------------- parts

    def _committed(self, group: str, wanted: list[TopicPartition]) -> list[TopicPartition]:
        # Asked by a consumer that never joins: librdkafka 2.16's `list_consumer_group_offsets` kills the process
        # (a null pointer in rd_kafka_cgrp_op) where the group's coordinator is not ready yet.
        # Each time by a new one: a client that has lost its coordinator may never look for another.
        end = time.monotonic() + REQUEST_SECONDS
        while True:
            consumer = new_client(Consumer, self._config, self._config.consumer(group))
            try:
                return consumer.committed(wanted, timeout=_COMMITTED_SECONDS)
            except KafkaException as error:
                # The coordinator of a group is being looked for, loads, or has just moved.
                if error.args[0].code() not in _MOVING or time.monotonic() > end:
                    raise
            finally:
                consumer.close()
            time.sleep(_LOOK_SECONDS)

    def _heard(self, error: KafkaError) -> None:
        # "1/1 brokers are down" says less than the connection's own error before it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._reason = error.str()

    async def _metadata(self, seconds: float = REQUEST_SECONDS) -> Any:
        try:
            return await asyncio.to_thread(self._client.list_topics, timeout=seconds)
        finally:
            self._client.poll(0)  # what the client has to say: log lines, and errors for `_heard`

    async def _appear(self, wanted: Mapping[str, int]) -> None:
        """Wait until every partition answers. To have leaders is not enough: a partition that is just coming up may
        refuse a producer's first record and take the second (kafka_producer.py tells what becomes of the first).
        """
        end = time.monotonic() + _APPEAR_SECONDS
        missing = set(wanted)
        while missing and time.monotonic() < end:
            missing -= {name for name, count in (await self.partitions(missing)).items() if count >= wanted[name]}
            if missing:
                await asyncio.sleep(_LOOK_SECONDS)
        if missing:
            raise ConfigurationError(f"topics were created but did not appear: {', '.join(sorted(missing))}")
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client has no type here
        try:
            await self._offsets(wanted, latest, max(REQUEST_SECONDS, end - time.monotonic()))
        except KafkaException as error:
            if error.args[0].code() in _PASSING:
                told = f"topics were created, but the broker does not serve them: {error.args[0].str()}"
                raise ConfigurationError(f"{told}; look at its log, and try again") from None
            raise

    async def _offsets(
        self, topics: Iterable[str], spec: OffsetSpec, seconds: float = REQUEST_SECONDS
    ) -> dict[Partition, int]:
        names, end = list(topics), time.monotonic() + seconds
        while True:
            # Asked for each time, as the client learns by nothing else that a leader has begun a new epoch.
            counts = _usable(await self._metadata(), names)
            wanted = {TopicPartition(name, number): spec for name, count in counts.items() for number in range(count)}
            try:
                return await self._listed(wanted) if wanted else {}
            except KafkaException as error:
                # A topic that was just created, or a leader that moves: the answer is elsewhere in a moment.
                if error.args[0].code() not in _PASSING or time.monotonic() > end:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    async def _listed(self, wanted: dict[TopicPartition, OffsetSpec]) -> dict[Partition, int]:
        futures = self._client.list_offsets(wanted, request_timeout=REQUEST_SECONDS)
        found = {_name(part): (await asyncio.wrap_future(future)).offset for part, future in futures.items()}
        if OFFSET_INVALID in found.values():
            # So the client says, and names no error, where the broker goes away while it is asked.
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the broker went away before it answered"))
        return found

    async def _broker_config(self) -> Mapping[str, str]:
        ids = sorted((await self._metadata()).brokers)[:1]
        try:
            configs = await self._configs(ResourceType.BROKER, [str(number) for number in ids])
        except KafkaException:
            return {}  # we may not ask: nothing is known
        return configs.get(str(ids[0]), {}) if ids else {}

    async def _configs(self, kind: ResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        futures = self._client.describe_configs(
            [ConfigResource(kind, name) for name in names], request_timeout=REQUEST_SECONDS
        )
        found: dict[str, dict[str, str]] = {}
        for resource, future in futures.items():
            entries: Mapping[str, Any] = await asyncio.wrap_future(future)
            found[resource.name] = {key: entry.value for key, entry in entries.items() if entry.value is not None}
        return found


async def _created(name: str, future: Future[None]) -> Creation:
    try:
        await asyncio.wrap_future(future)
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return "present"
        if code in _OUR_MISTAKE:
            raise ConfigurationError(f"topic {name} cannot be created: {error.args[0].str()}") from None
        raise
    return "created"


def _has_controller(metadata: Any) -> bool:
    return metadata.controller_id in metadata.brokers


def _usable(metadata: Any, names: Iterable[str]) -> dict[str, int]:
    """Count the partitions of those topics that exist and whose partitions all have a leader."""
    found = {name: metadata.topics.get(name) for name in names}
    return {
        name: len(topic.partitions)
        for name, topic in found.items()
        if topic is not None and topic.error is None and all(one.leader >= 0 for one in topic.partitions.values())
    }


def _new_topic(spec: TopicSpec) -> NewTopic:
    return NewTopic(spec.name, spec.partitions, -1, config=dict(spec.config))


def _name(part: TopicPartition) -> Partition:
    return Partition(part.topic, part.partition)


@asynccontextmanager
async def open_admin(config: KafkaConfig) -> AsyncIterator[Admin]:
    """An admin client for as long as the block lasts."""
    yield Admin(config)

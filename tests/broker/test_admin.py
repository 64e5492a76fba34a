"""The admin client: what the contract does not show."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.broker.admin import Admin, TopicSpec, open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Partition
from pipeline.devkit.kafka import Broker

pytestmark = pytest.mark.local


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, for as long as the test lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(scope="module")
def test_broker() -> Iterator[str]:
    """The address of librdkafka's own test broker."""
    owner = Producer({"test.mock.num.brokers": 1})
    metadata = owner.list_topics(timeout=10)
    yield ",".join(f"{one.host}:{one.port}" for one in metadata.brokers.values())
    owner.flush(0)


async def test_broker_that_does_not_come(nobody: str) -> None:
    """Waiting says what for and why, and ends with one sentence that names the address and both variables."""
    said: list[str] = []
    async with open_admin(KafkaConfig({"bootstrap.servers": nobody})) as admin:
        with pytest.raises(ConfigurationError) as ended:
            await admin.wait_for_broker(1.5, said.append)
    assert said
    assert said[0].startswith(f"waiting for Kafka at {nobody}, ")
    for part in (nobody, "within 1.5 s", "Connection refused", "KAFKA_BOOTSTRAP_SERVERS", "PIPELINE_STARTUP_SECONDS"):
        assert part in str(ended.value)


async def test_members_nobody_can_name(nobody: str) -> None:
    """Where no broker answers that is an error, and nothing worse: the client has died of other such questions."""
    async with open_admin(KafkaConfig({"bootstrap.servers": nobody})) as admin:
        for _ in range(2):
            with pytest.raises(KafkaException, match="coordinator of a group has not answered"):
                await admin.members("a group", 0.5)


async def test_members_of_nothing(test_broker: str) -> None:
    """A group that never was has no members, or is an error where the broker does not answer such questions."""
    async with open_admin(KafkaConfig({"bootstrap.servers": test_broker})) as admin:
        with contextlib.suppress(KafkaException):
            assert list(await admin.members("a group", 2.0)) == []


class _Moving(Admin):
    """Of a group that copies its only record to a tier, and commits it, just when it is asked where it stands."""

    moved = False

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, int]:
        self.moved = True
        return {Partition("source", 0): 1}

    async def end_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        return {Partition("source", 0): 1, Partition("tier", 0): int(self.moved)}

    async def begin_offsets(self, topics: Iterable[str]) -> Mapping[Partition, int]:
        return {Partition("source", 0): 0, Partition("tier", 0): 0}


async def test_lag_while_a_record_moves(nobody: str) -> None:
    """A record that goes from a topic to a tier while its group's lag is asked for is seen on one of them at least."""
    admin = _Moving(KafkaConfig({"bootstrap.servers": nobody}))
    assert sum((await admin.lag("a group", ["source", "tier"])).values()) == 1


class _Restarting:
    """A client as it behaves while its broker is killed and comes back: an end that is none and no error, then the
    leader's old epoch until the metadata is asked for again. Seen on Kafka 4.3.1 with librdkafka 2.16.
    """

    known, epoch, asked = 0, 1, 0

    def list_topics(self, timeout: float) -> SimpleNamespace:
        self.known = self.epoch
        topic = SimpleNamespace(error=None, partitions={0: SimpleNamespace(leader=1)})
        return SimpleNamespace(topics={"t": topic})

    def list_offsets(self, wanted: Iterable[TopicPartition], request_timeout: float) -> dict[TopicPartition, Any]:
        answer = Future[SimpleNamespace]()
        self.asked += 1
        if self.asked == 1:
            answer.set_result(SimpleNamespace(offset=OFFSET_INVALID))
            self.epoch = 3
        elif self.known < self.epoch:
            answer.set_exception(KafkaException(KafkaError(KafkaError.FENCED_LEADER_EPOCH)))
        else:
            answer.set_result(SimpleNamespace(offset=15))
        return dict.fromkeys(wanted, answer)

    def poll(self, timeout: float) -> int:
        return 0


async def test_ends_while_the_broker_restarts(nobody: str) -> None:
    """What the client calls an end without having been told one is none: it is asked again, of the newest leader."""
    admin = Admin(KafkaConfig({"bootstrap.servers": nobody}))
    admin._client = client = _Restarting()  # type: ignore[assignment]  # of the real one it has what is asked here
    assert await admin.end_offsets(["t"]) == {Partition("t", 0): 15}
    assert client.asked == 2


async def test_refused_configuration() -> None:
    """A property that librdkafka does not know is an error that names its variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_NO_SUCH_THING cannot be used"):
        Admin(KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"}))


async def test_topics_of_the_test_broker(test_broker: str) -> None:
    """librdkafka's test broker cannot create topics on request, so they are called into being; nobody has to know."""
    async with open_admin(KafkaConfig({"bootstrap.servers": test_broker})) as admin:
        await admin.wait_for_broker(10, print)
        assert await admin.create_topics([TopicSpec("made", 4)]) == {"made": "created"}
        assert await admin.create_topics([TopicSpec("made", 4)]) == {"made": "present"}
        (state,) = (await admin.describe_topics(["made", "not made"])).values()
        assert [state.name, state.partitions] == ["made", 4]
        assert set((await admin.end_offsets(["made"])).values()) == {0}
        assert await admin.group_protocol() == "classic"


@pytest.mark.kafka
async def test_protocol_of_a_real_broker(kafka: Broker) -> None:
    """The embedded broker has KIP-848 with a quick heartbeat."""
    async with open_admin(KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers})) as admin:
        assert await admin.group_protocol() == "consumer"


@pytest.mark.kafka
async def test_topic_that_cannot_be(kafka: Broker) -> None:
    """A property that Kafka does not know is an error of configuration that names the topic."""
    async with open_admin(KafkaConfig({"bootstrap.servers": kafka.bootstrap_servers})) as admin:
        for spec in (TopicSpec("bad.config", 1, {"retention.ms": "soon"}), TopicSpec("bad.partitions", 0)):
            with pytest.raises(ConfigurationError, match=f"topic {spec.name} cannot be created"):
                await admin.create_topics([spec])

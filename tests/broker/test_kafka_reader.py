"""The reader of a real cluster: what the contract does not show."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import Producer

from pipeline.broker import kafka_reader
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka import KafkaReader, open_producer, open_reader
from pipeline.broker.topics import TopicSpec
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Outgoing, Partition
from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from tests.broker.kafka_bench import kafka_bench
from tests.contracts.broker_bench import new_topic, nothing, take, values, write
from tests.contracts.reader_contract import stands

NOWHERE = KafkaConfig({"bootstrap.servers": "127.0.0.1:1"})


async def test_refused_configuration() -> None:
    """A property that librdkafka does not know is an error that names its variable."""
    with pytest.raises(ConfigurationError, match="KAFKA_NO_SUCH_THING cannot be used"):
        KafkaReader(KafkaConfig({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"}), "r")


async def test_no_broker_at_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker a reader waits and says what for; fetches return empty, and closing ends all waiting."""
    monkeypatch.setattr(kafka_reader, "LOOKUP_SECONDS", 0.1)
    async with asyncio.timeout(20), open_reader(NOWHERE, "its answers") as reader:
        asked = asyncio.create_task(reader.ends([Partition("t", 0)]))
        reader.follow(Partition("t", 0), 0)
        await nothing(reader, turns=2)
        assert (reader.positions(), asked.done()) == ({}, False)
        await reader.close()
        assert await asked == {}
    assert "its answers waits: Kafka does not answer" in capsys.readouterr().out


@pytest.mark.kafka
class TestOnABroker:
    """Facts that need the real thing."""

    async def test_behind_an_open_transaction(self, kafka: Broker) -> None:
        """Records behind an open transaction are read, and the position steps over its marker."""
        async with kafka_bench(kafka.bootstrap_servers, "consumer") as bench:
            topic, reader = await new_topic(bench), bench.reader()
            name = Partition(topic, 0)
            reader.follow(name, 0)
            other = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": bench.name()})
            await asyncio.to_thread(_begin, other, topic)
            await write(bench.producer(), [Outgoing(topic, None, b"behind")])
            assert values(await take(reader, 2)) == [b"open", b"behind"]
            assert await reader.ends([name]) == {name: 2}
            await asyncio.to_thread(other.abort_transaction)
            await stands(reader, name, 3)

    async def test_broker_restarts(self, own_kafka: EmbeddedKafkaConfig) -> None:
        """While the broker is away a reader waits; when it is back it reads on, and nothing is missing or repeated."""
        async with embedded_kafka(own_kafka) as broker, kafka_bench(broker.bootstrap_servers, "consumer") as bench:
            await bench.cluster.create_topics([TopicSpec("t", 1)])
            name, reader = Partition("t", 0), bench.reader()
            reader.follow(name, 0)
            async with open_producer(KafkaConfig({"bootstrap.servers": broker.bootstrap_servers})) as producer:
                await write(producer, [Outgoing("t", None, b"before")])
                assert values(await take(reader, 1)) == [b"before"]
                async with asyncio.timeout(60):
                    await broker.restart()
                    asked = asyncio.create_task(reader.ends([name]))
                    await write(producer, [Outgoing("t", None, b"after")])
                    assert values(await take(reader, 1)) == [b"after"]
                    assert (await asked)[name] in {1, 2}
                await stands(reader, name, 2)


def _begin(producer: Producer, topic: str) -> None:
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush()

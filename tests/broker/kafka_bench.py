"""The contract's bench on a real cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though its stubs do not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from pipeline.broker.admin import Admin
from pipeline.broker.config import GroupProtocol, KafkaConfig
from pipeline.broker.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from pipeline.broker.kafka_transactions import KafkaTransactions
from pipeline.core.ports import Batch
from pipeline.core.record import Partition
from tests.contracts.broker_bench import PATIENCE, Bench

_QUICK = {"topic.metadata.refresh.interval.ms": "500", "topic.metadata.propagation.max.ms": "1000"}

# The shortest session that deploy/kafka/server.properties lets a member have.
_SESSION_MS = 3000
_SHORT_SESSION = {"session.timeout.ms": str(_SESSION_MS), "heartbeat.interval.ms": "500"}

_MEMBER = """
import sys
from confluent_kafka import Consumer
from tests.broker.kafka_bench import plain
servers, group, topic, protocol = sys.argv[1:]
consumer = Consumer(plain(servers, group, protocol))
consumer.subscribe([topic])
while not consumer.assignment():
    consumer.poll(0.1)
print("ready", flush=True)
while True:
    consumer.poll(0.1)
"""


_DYING = """
import json, sys, time
from confluent_kafka import Producer, TopicPartition
said = json.loads(sys.argv[1])
producer = Producer(said["producer"])
producer.init_transactions()
producer.begin_transaction()
for topic, value, partition in said["records"]:
    producer.produce(topic, value, partition=partition)
producer.flush()
producer.send_offsets_to_transaction([TopicPartition(*one) for one in said["offsets"]], bytes.fromhex(said["member"]))
print("ready", flush=True)
time.sleep(600)
"""


def plain(servers: str, group: str, protocol: str) -> dict[str, str | int | float | bool]:
    """The properties of a bare member that commits nothing."""
    own: dict[str, str | int | float | bool] = {
        "bootstrap.servers": servers,
        "group.id": group,
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    if protocol == "classic":
        own |= {"partition.assignment.strategy": "cooperative-sticky", **_SHORT_SESSION}
    return own


class KafkaDoomed:
    """A member in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Watch a process."""
        self._process = process

    async def kill(self) -> None:
        """Kill it, if it lives."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def _process(program: str, *arguments: str) -> AsyncIterator[KafkaDoomed]:
    """Run a program that says when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    doomed = KafkaDoomed(process)
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield doomed
    finally:
        await doomed.kill()


class KafkaBench:
    """Topics and groups with new names on a broker that others use too."""

    def __init__(self, config: KafkaConfig, stack: AsyncExitStack) -> None:
        """Open clients in `stack`."""
        self.cluster = Admin(config)
        self.config = config
        self._stack = stack

    def name(self) -> str:
        """A name nobody has used."""
        return f"contract.{uuid4().hex[:12]}"

    def producer(self) -> KafkaProducer:
        """A producer, closed with the bench."""
        producer = KafkaProducer(self.config)
        self._stack.push_async_callback(producer.close)
        return producer

    def consumer(self, group: str, *, impatient: bool = False) -> KafkaConsumer:
        """A consumer, closed with the bench."""
        if impatient:
            self._short_session(group)
        consumer = KafkaConsumer(self._impatient() if impatient else self.config, group)
        self._stack.push_async_callback(consumer.close, {})
        return consumer

    def reader(self) -> KafkaReader:
        """A reader, closed with the bench."""
        reader = KafkaReader(self.config, self.name())
        self._stack.push_async_callback(reader.close)
        return reader

    def transactions(self, group: str, transactional_id: str) -> KafkaTransactions:
        """Transactions, closed with the bench."""
        transactions = KafkaTransactions(self.config, group, transactional_id)
        self._stack.push_async_callback(transactions.close)
        return transactions

    @asynccontextmanager
    async def dying(self, group: str, transactional_id: str, batch: Batch) -> AsyncIterator[KafkaDoomed]:
        """A producer in a process that can be killed; the broker aborts what it has open after a second, and a look."""
        own = dict.fromkeys(("transaction.timeout.ms", "message.timeout.ms", "socket.timeout.ms"), 1500)
        said = {
            "producer": {**self.config.transactions(transactional_id), **own},
            "records": [(one.topic, (one.value or b"").decode(), one.partition) for one in batch.records],
            "offsets": [(*name, commit.offset, commit.metadata) for name, commit in batch.offsets.items()],
            "member": batch.member.hex(),
        }
        async with _process(_DYING, json.dumps(said)) as doomed:
            yield doomed

    @asynccontextmanager
    async def doomed(self, group: str, topic: str) -> AsyncIterator[KafkaDoomed]:
        """A member that owns the topic, in a process that can be killed."""
        self._short_session(group)
        async with _process(_MEMBER, self.config.servers, group, topic, self.config.group_protocol) as member:
            yield member

    async def trim(self, partition: Partition, below: int) -> None:
        """Delete the records below an offset."""
        admin = AdminClient({"bootstrap.servers": self.config.servers})
        for future in admin.delete_records([TopicPartition(*partition, below)]).values():
            await asyncio.wrap_future(future)

    async def missed(self) -> None:
        """The fetches that follow wait long enough."""

    def _impatient(self) -> KafkaConfig:
        own = {"max.poll.interval.ms": str(int(PATIENCE * 1000))}
        if self.config.group_protocol == "classic":
            own |= _SHORT_SESSION
        return KafkaConfig({**self.config.overrides, **own}, self.config.group_protocol)

    def _short_session(self, group: str) -> None:
        """For members of the new protocol the group says so. For once a test may wait without its loop."""
        entry = ConfigEntry(
            "consumer.session.timeout.ms", str(_SESSION_MS), incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.config.servers})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


@asynccontextmanager
async def kafka_bench(servers: str, protocol: GroupProtocol) -> AsyncIterator[Bench]:
    """Open a bench on a running broker."""
    async with AsyncExitStack() as stack:
        config = KafkaConfig({"bootstrap.servers": servers, **_QUICK}, protocol)
        yield KafkaBench(config, stack)

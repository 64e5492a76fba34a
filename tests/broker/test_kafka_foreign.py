"""A stage that reads foreign topics, on a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from pipeline.broker.topics import TopicSpec
from pipeline.core.errors import Reject, Retry
from pipeline.core.limits import MAX_FOREIGN_BYTES, MAX_FOREIGN_COPY_BYTES
from pipeline.core.record import Headers, Outgoing, Partition, Record
from pipeline.devkit.kafka import Broker
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.telemetry.metrics import StageMetrics
from tests.broker.kafka_bench import KafkaBench, kafka_bench
from tests.contracts.broker_bench import Owner, take, write
from tests.runtime.world import OPEN, Decoder, JsonCodec, Note, Script, World

pytestmark = pytest.mark.kafka

DEBEZIUM: Headers = (
    ("__debezium.newkey", b'{"id":"7"}'),
    ("__debezium.context.runId", "é".encode()),
    ("empty", None),
    ("twice", b"1"),
    ("twice", b"2"),
)


@dataclass
class Place:
    """A stage at work beside its topics; our own have one partition, the foreign one has three."""

    bench: KafkaBench
    bound: Plan
    foreign: str
    script: Script
    decoder: Decoder
    runner: Runner
    registry: CollectorRegistry

    async def write(self, *records: tuple[bytes | None, bytes | None, int]) -> None:
        """Write key, value and partition onto the foreign topic."""
        made = [Outgoing(self.foreign, key, value, DEBEZIUM, number) for key, value, number in records]
        assert await write(self.bench.producer(), made) == [None] * len(made)

    async def done(self) -> bool:
        """Whether nothing is left to do on any topic that it reads."""
        there = await self.bench.cluster.partitions(self.bound.topics)
        lag = await self.bench.cluster.lag(self.bound.group, self.bound.topics)
        return len(there) == len(self.bound.topics) and not any(lag.values())

    def metric(self, name: str, **labels: str) -> float:
        """Read a metric of the stage."""
        return self.registry.get_sample_value(f"pipeline_{name}", {"stage": "work", **labels}) or 0.0


@asynccontextmanager
async def place(
    servers: str, script: Script, answers: Mapping[str, list[Any]] | None = None, *, there: bool = True
) -> AsyncIterator[Place]:
    """Run a stage with one foreign topic, whose decoder has `answers`. Unless `there` that does not exist yet."""
    async with kafka_bench(servers, "consumer") as bench:
        assert isinstance(bench, KafkaBench)
        foreign, prefix = f"app.{uuid4().hex[:8]}.users", uuid4().hex[:8]
        bound = plan(World.stage(OPEN, output=None, repartition=True), prefix, [foreign])
        ours = [name for name in (*bound.topics, bound.dead_letters, bound.failures) if name != foreign]
        copies = {"max.message.bytes": str(MAX_FOREIGN_COPY_BYTES)}
        await bench.cluster.create_topics(TopicSpec(name, 1, copies) for name in ours)
        if there:
            await bench.cluster.create_topics([TopicSpec(foreign, 3, {"max.message.bytes": str(MAX_FOREIGN_BYTES)})])
        decoder, registry = Decoder(foreign, **(answers or {})), CollectorRegistry()
        kit = Kit(
            bench.consumer(bound.group),
            bench.producer(),
            JsonCodec(),
            time.time,
            Observer(StageMetrics(registry)),
            counts=bench.cluster.partitions,
            foreign=decoder,
        )
        runner = Runner(bound, script, kit)
        task = asyncio.create_task(runner.run())
        try:
            yield Place(bench, bound, foreign, script, decoder, runner, registry)
        finally:
            runner.stop()
            await task


async def until(holds: Callable[[], Any]) -> None:
    """Wait for something, fifty seconds at most."""
    for _ in range(500):
        held = holds()
        if (await held) if asyncio.iscoroutine(held) else held:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came to hold")


def told(record: Record) -> tuple[object, ...]:
    """Take all of a record that anybody can know, where it stands included."""
    return tuple(getattr(record, name) for name in Record.__slots__)


async def _read(at: Place, topics: Sequence[str], count: int) -> list[Record]:
    reader = at.bench.consumer(uuid4().hex)
    reader.subscribe(topics, Owner())
    return list(await take(reader, count))


@pytest.mark.within(120)
async def test_foreign_records_come_to_their_ends(kafka: Broker) -> None:
    """Beside our own: handled, ignored with null values and keys, dead with all their bytes; lag reaches 0."""
    script = Script(ours=[[]], row=[[]])
    async with place(kafka.bootstrap_servers, script, {"bad": [Reject("unknown op")]}) as at:
        ours = Outgoing(next(iter(at.bound.sources)), b"k", Note(text="ours").model_dump_json().encode())
        assert await write(at.bench.producer(), [ours]) == [None]
        tombstones = [(key, None, number) for number in range(3) for key in (b"k", None)]
        await at.write((b"k", b"row", 0), *tombstones, (None, b"bad", 2), (b"k", None, 2))
        await until(lambda: len(script.done) == 2 and at.metric("records_ignored_total", topic=at.foreign) == 7)
        await until(at.done)
        assert sorted(script.texts) == ["ours", "row"]
        committed = await at.bench.cluster.committed(at.bound.group, [at.foreign])
        assert committed == {Partition(at.foreign, 0): 3, Partition(at.foreign, 1): 2, Partition(at.foreign, 2): 4}
        (letter,) = await _read(at, [at.bound.dead_letters], 1)
        assert (letter.key, letter.value, letter.headers[: len(DEBEZIUM)]) == (None, b"bad", DEBEZIUM)


@pytest.mark.within(120)
async def test_a_foreign_record_comes_back_from_a_tier_as_it_was(kafka: Broker) -> None:
    """What a handler or a decoder failed at, null key and value included: as if it still stood where it did."""
    script = Script(row=[Retry("once"), []])
    async with place(kafka.bootstrap_servers, script, {"": [RuntimeError("a bug")]}) as at:
        await at.write((b'{"id":"7"}', b"row", 1), (None, None, 2))
        await until(lambda: script.texts == ["row", "row"])
        first, *_, last = [record for record, _ in at.decoder.seen if record.value == b"row"]
        assert (told(first), first.headers) == (told(last), DEBEZIUM)
        assert [call.attempt for call in script.calls] == [1, 2]
        await until(lambda: at.metric("records_ignored_total", topic=at.foreign) == 1)
        (before, _), (after, topic) = [(one, topic) for one, topic in at.decoder.seen if one.value is None]
        assert (told(before), topic) == (told(after), at.foreign)
        await until(at.done)


@pytest.mark.within(120)
async def test_the_largest_foreign_record_does_not_stop_the_stage(kafka: Broker) -> None:
    """One that nobody can read is put aside whole, though its copy is larger by the headers that say why."""
    script, bad = Script(row=[[]]), b"x" * (MAX_FOREIGN_BYTES - 1_000)
    async with place(kafka.bootstrap_servers, script, {bad.decode(): [Reject("too large")]}) as at:
        await at.write((b"k", bad, 0), (b"k", b"row", 0))
        await until(lambda: script.done == ["row"])
        (letter,) = await _read(at, [at.bound.dead_letters], 1)
        assert letter.value == bad
        await until(at.done)


@pytest.mark.within(120)
async def test_a_foreign_topic_is_waited_for(kafka: Broker) -> None:
    """Its connector makes it when the table has its first row; until then the stage does what else there is."""
    script = Script(row=[[]])
    async with place(kafka.bootstrap_servers, script, there=False) as at:
        await until(lambda: at.foreign in at.runner.status()[2] and at.runner.ready())
        assert not any((await at.bench.cluster.lag(at.bound.group, at.bound.topics)).values())
        await at.bench.cluster.create_topics([TopicSpec(at.foreign, 3)])
        await at.write((b"k", b"row", 2))
        await until(lambda: script.done == ["row"])
        await until(at.done)
        await until(lambda: at.runner.status()[2] == "running")

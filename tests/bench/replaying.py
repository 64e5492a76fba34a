"""Replays: whether dead letters go back at the rate that was asked for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from pipeline import wiring
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka_producer import open_producer
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.payloads import RetrievedContext
from pipeline.core.record import Outgoing, Position, Record
from pipeline.core.replay import Rules
from pipeline.core.trace import root
from pipeline.ops.replay import Replays
from pipeline.ops.replay_plan import Wanted
from pipeline.ops.replay_work import Person
from pipeline.replaying import open_replays
from pipeline.resources import resource
from pipeline.settings import Environment, load
from pipeline.topology import topic_specs
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from tests.bench.figures import Figure, at_most
from tests.bench.lab import Stand

RATE = 5_000.0
PARTITIONS = 6
MOST_ROUNDS = 3
_NEEDED = ("infer.dlq", "infer.retry.10s", "letters", "audit")


async def at_the_rate(stand: Stand) -> list[Figure]:
    """D2: 100,000 dead letters, replayed at 5,000 a second"""
    count = 5_000 if stand.lab.quick else 100_000
    wrong = []
    async with _buried(stand, count) as replays:
        for number in range(min(stand.lab.rounds, MOST_ROUNDS)):
            rules, wanted = Rules(f"bench-{number}", again=True, most=100, guard=0), Wanted()
            began = time.monotonic()
            plan = await replays.plan(rules, wanted, _quiet)
            planned = time.monotonic() - began
            report = await replays.execute(plan, wanted, Person("bench", ""), RATE)
            assert report.copies == count, report
            rate = report.copies / report.seconds
            print(f"  {number + 1}: planned in {planned:.1f} s, {rate:,.0f} letters a second", flush=True)
            wrong.append(abs(rate / RATE - 1))
    what = f"share by which {count:,} dead letters miss the {RATE:,.0f} a second asked for"
    return [at_most("D2-replay", what, 0.05, wrong, "share")]


@asynccontextmanager
async def _buried(stand: Stand, count: int) -> AsyncIterator[Replays]:
    """Write dead letters of `infer`, under a prefix of their own."""
    prefix = f"bench-{uuid4().hex[:8]}"
    told = {"KAFKA_BOOTSTRAP_SERVERS": stand.servers, "PIPELINE_TOPIC_PREFIX": prefix}
    configured = load(Environment(told), wiring.STAGES)
    specs = [one for one in topic_specs(prefix, PARTITIONS) if one.name.removeprefix(f"{prefix}.") in _NEEDED]
    await stand.admin.create_topics(specs)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stand.admin.delete_topics, [one.name for one in specs])
        async with open_producer(KafkaConfig({"bootstrap.servers": stand.servers})) as producer:
            value = await AvroCodec(load_schemas(resource("schemas"))).encode(
                "contexts", RetrievedContext(input="What time is it?" * 10)
            )
            for number, letter in enumerate(_letters(prefix, count, value), start=1):
                producer.send(letter, _heard)
                if number % 10_000 == 0:
                    assert await producer.flush(60) == 0
            assert await producer.flush(60) == 0
        yield await stack.enter_async_context(open_replays(configured, _say))


def _letters(prefix: str, count: int, value: bytes) -> Iterator[Outgoing]:
    now = time.time()
    grave = Grave("infer", f"{prefix}.infer", "model_500", "Retry", "the model's server failed", "0.1.0", now)
    for number in range(count):
        job = Job(f"job-{number}", "acme", "quick_answer", "standard", accepted_at_ms=int(now * 1000))
        place = Position(f"{prefix}.contexts.standard", number % PARTITIONS, number)
        origin = Origin(place, int(now * 1000))
        event = Event(f"event-{number}", job, RetrievedContext(input=""), b"k%d" % number, root(job.id), origin)
        record = Record(*place, event.key, value, event.headers("contexts", now), origin.timestamp_ms)
        headers = dead_headers(record, origin, Tries(3, 0, 0), grave)
        yield Outgoing(f"{prefix}.infer.dlq", record.key, value, headers, place.partition)


def _heard(error: Exception | None) -> None:
    if error is not None:
        raise error


def _say(_: str) -> None:
    """Tell nobody."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""

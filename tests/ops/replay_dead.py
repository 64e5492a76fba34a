"""Dead letters as the pipeline writes them, many of them, for brokers that are real."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

from pipeline import wiring
from pipeline.broker.admin import open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka_producer import open_producer
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.payloads import RetrievedContext
from pipeline.core.record import Outgoing, Position, Record
from pipeline.core.trace import root
from pipeline.resources import resource
from pipeline.settings import Configured, Environment, load
from pipeline.topology import topic_specs
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

PARTITIONS = 6
CONTEXT = RetrievedContext(input="What time is it? " * 10)
_NEEDED = ("infer.dlq", "infer.retry.10s", "letters", "audit")
_FLUSHED = 10_000


@asynccontextmanager
async def buried(servers: str, count: int) -> AsyncIterator[Configured]:
    """Write so many dead letters of `infer` under a prefix of their own; yields the settings that say where."""
    prefix = f"dead-{uuid4().hex[:8]}"
    config = KafkaConfig({"bootstrap.servers": servers})
    specs = [one for one in topic_specs(prefix, PARTITIONS) if one.name.removeprefix(f"{prefix}.") in _NEEDED]
    value = await AvroCodec(load_schemas(resource("schemas"))).encode("contexts", CONTEXT)
    async with open_admin(config) as admin, open_producer(config) as producer:
        await admin.create_topics(specs)
        for number, letter in enumerate(letters(prefix, count, value), start=1):
            producer.send(letter, _heard)
            if number % _FLUSHED == 0 or number == count:
                assert await producer.flush(60) == 0
        told = {"KAFKA_BOOTSTRAP_SERVERS": servers, "PIPELINE_TOPIC_PREFIX": prefix}
        yield load(Environment(told), wiring.STAGES)
        await admin.delete_topics([one.name for one in specs])


def letters(prefix: str, count: int, value: bytes) -> Iterator[Outgoing]:
    """Make dead letters of one reason, of as many jobs, one partition after the other."""
    now = time.time()
    grave = Grave("infer", f"{prefix}.infer", "model_500", "Retry", "the model's server failed", "0.1.0", now)
    for number in range(count):
        job = Job(f"job-{number}", "acme", "quick_answer", "standard", accepted_at_ms=int(now * 1000))
        place = Position(f"{prefix}.contexts.standard", number % PARTITIONS, number)
        origin = Origin(place, int(now * 1000))
        event = Event(f"event-{number}", job, CONTEXT, b"k%d" % number, root(job.id), origin)
        record = Record(*place, event.key, value, event.headers("contexts", now), origin.timestamp_ms)
        headers = dead_headers(record, origin, Tries(3, 0, 0), grave)
        yield Outgoing(f"{prefix}.infer.dlq", record.key, record.value, headers, place.partition)


def _heard(error: Exception | None) -> None:
    if error is not None:
        raise error

"""What all variants read: records as a stage in the middle of the chain gets them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job, child_id, job_id
from pipeline.core.payloads import Passage, RetrievedContext
from pipeline.core.record import Headers, Position, Record
from pipeline.core.trace import root
from pipeline.resources import resource
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from tests.bench.order import NOUN

PARTITIONS = 12
KEYS = 1000

Head = list[tuple[str, str | bytes | None]]
"""Headers as a producer takes them."""

_VALUES = 64
_HEADERS = 4096
_WORDS = "parcel locker notice holiday depot courier label return refund window counter receipt".split()
_PASSAGE_CHARACTERS = 250
_HOUR = 3600.0
_REASONS = (
    ("model_timeout", "the model has not answered within 60 s, request"),
    ("model_error", "the provider answered 500 to request"),
    ("unexpected", "KeyError: 'choices' in the answer to"),
    ("context_too_long", "the prompt is longer than the model's window by tokens"),
)


def key(number: int) -> str:
    """Spell one of the keys."""
    return f"conversation-{number:04d}"


async def fill(servers: str, topic: str, count: int, keys: int = KEYS) -> int:
    """Write `count` records of `keys` keys to `topic`: values of 1 kB, and headers as our stages write them.

    Returns the size of a value in bytes, on average.
    """
    codec = AvroCodec(load_schemas(resource("schemas")))
    values = [await codec.encode(NOUN, context) for context in _contexts()]
    await asyncio.to_thread(_write, servers, topic, (count, keys), values, headers())
    return sum(map(len, values)) // len(values)


async def fill_plain(servers: str, topic: str, count: int, size: int) -> None:
    """Write `count` records of `KEYS` keys, without headers and with values of `size` bytes: soon written."""
    values = [random.Random(number).randbytes(size) for number in range(_VALUES)]
    await asyncio.to_thread(_write, servers, topic, (count, KEYS), values, [[]])


async def fill_dead(servers: str, topic: str, count: int) -> None:
    """Write `count` dead letters to `topic`, a dead-letter topic of the stage that reads `NOUN`: of four kinds."""
    codec, now = AvroCodec(load_schemas(resource("schemas"))), time.time()
    values = [await codec.encode(NOUN, context) for context in _contexts()]
    buried = [_buried(number, head, now) for number, head in enumerate(headers())]
    await asyncio.to_thread(_write, servers, topic, (count, KEYS), values, buried)


def _buried(number: int, head: Head, now: float) -> Head:
    place = Position("bench.contexts.standard", number % PARTITIONS, number)
    record = Record(*place, None, None, tuple((name, _bytes(value)) for name, value in head), int(now * 1000))
    code, reason = _REASONS[number % len(_REASONS)]
    grave = Grave("infer", "bench.infer", code, "Retry", f"{reason} {number}", "0.1.0", now - number)
    return [*dead_headers(record, Origin(place, record.timestamp_ms), Tries(3, 1), grave)]


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def headers() -> list[Head]:
    """Make the headers of some records that two of our stages have handled."""
    context, now = _contexts()[0], time.time()
    return [
        [*_headers(number, Position("bench.requests", number % PARTITIONS, number), context, now)]
        for number in range(_HEADERS)
    ]


def open_writer(servers: str, linger_ms: int) -> Producer:
    """Open a producer that loses nothing and has room for a million records."""
    settings = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": linger_ms, "log_level": 3}
    return Producer({**settings, "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1 << 20})


def _write(
    servers: str,
    topic: str,
    count_and_keys: tuple[int, int],
    values: Sequence[bytes],
    heads: Sequence[Head],
) -> None:
    count, keys = count_and_keys
    producer, chance = open_writer(servers, 50), random.Random(2)
    for number in range(count):
        # Where there are as many keys as records, each has its own.
        chosen = chance.randrange(keys) if keys < count else number
        value, head = values[number % len(values)], heads[number % len(heads)]
        producer.produce(topic, value, key(chosen), chosen % PARTITIONS, headers=head)
        if number % 1000 == 0:
            producer.poll(0)
    if left := producer.flush(60):
        raise RuntimeError(f"{left} of {count} records were not written within a minute")


def _headers(number: int, position: Position, context: RetrievedContext, now: float) -> Headers:
    name = job_id("acme", "bench", str(number))
    parent = child_id(name, "preprocess", 0, 0)
    job = Job(
        id=name,
        tenant="acme",
        type="quick_answer",
        lane="standard",
        deadline_ms=int((now + _HOUR) * 1000),
        catalog="3f2b8a01c5d4",
        accepted_at_ms=int(now * 1000),
        hops=2,
    )
    origin = Origin(position, job.accepted_at_ms)
    event = Event(
        child_id(parent, "retrieve", 0, 0), job, context, b"", root(name), origin, parent=parent, output="0/1"
    )
    return event.headers(NOUN, now)


def _contexts() -> list[RetrievedContext]:
    chance = random.Random(1)
    return [_context(chance) for _ in range(_VALUES)]


def _context(chance: random.Random) -> RetrievedContext:
    passages = tuple(
        Passage(
            source="handbook",
            document=f"chapter-{number}",
            chunk=number,
            version=7,
            score=chance.random(),
            title="Parcels that nobody fetches",
            text=" ".join(chance.choices(_WORDS, k=100))[:_PASSAGE_CHARACTERS],
        )
        for number in range(3)
    )
    return RetrievedContext(
        input="How long is a parcel kept at the counter?", passages=passages, metadata={"sample": "request-17"}
    )

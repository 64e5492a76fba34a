"""A pipeline's dead letters on the broker in memory, and what works with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline import topology
from pipeline.broker.memory import MemoryBroker
from pipeline.broker.memory_reader import MemoryReader
from pipeline.broker.topics import TopicSpec
from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.letter import read_head
from pipeline.core.payloads import Payload, Request, RetrievedContext
from pipeline.core.record import Header, Headers, Outgoing, Position, Record
from pipeline.core.stage import Stage
from pipeline.ops.letter_decode import dead_topics
from pipeline.ops.letters import LetterPorts, Letters, open_letters
from pipeline.resources import resource
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from pipeline.wire.versions import ValueVersions
from tests.core.test_letter import TRACE

NOW = 1_800_000_000.0
PREFIX = "p"
STAGES: Mapping[str, Stage] = {one.name: one for one in topology.STAGES}
SCHEMAS = load_schemas(resource("schemas"))
GRAVE = Grave("infer", "p.infer", "unexpected", "KeyError", "KeyError: 'x'", "0.1.0", NOW - 60)
JOB = Job("", "acme", "quick_answer", "standard", int(NOW * 1000) + 900_000, 0, "c", int(NOW * 1000))


class LetterWorld:
    """Topics with dead letters in them. `bury` adds one; `letters` opens what works with them."""

    def __init__(self, partitions: int = 2) -> None:
        """Begin without topics."""
        self.now = NOW
        self.partitions = partitions
        self.broker = MemoryBroker(clock=lambda: self.now)
        self.codec = AvroCodec(SCHEMAS)
        self.readers: list[MemoryReader] = []
        self.told: list[tuple[str, int, int]] = []
        self.count = 0

    async def create(self) -> None:
        """Make all topics of the pipeline, with few partitions."""
        specs = topology.topic_specs(PREFIX, self.partitions)
        await self.broker.create_topics(TopicSpec(one.name, one.partitions, one.config) for one in specs)

    @asynccontextmanager
    async def opens(self) -> AsyncIterator[MemoryReader]:
        """Open a reader, and close it."""
        reader = self.broker.reader(committed=True)
        self.readers.append(reader)
        try:
            yield reader
        finally:
            await reader.close()
            self.readers.remove(reader)

    def ports(self) -> LetterPorts:
        """Make what letters are worked with."""
        return LetterPorts(
            self.opens,
            self.broker,
            self.codec,
            ValueVersions(SCHEMAS),
            self.broker.producer(),
            lambda: self.now,
            dead_topics(PREFIX, topology.STAGES),
            "p.letters",
            "p.audit",
            lambda *told: self.told.append(told),
        )

    async def letters(self) -> Letters:
        """Read what was done so far, and open what works with letters."""
        return await open_letters(self.ports())

    async def bury(
        self, grave: Grave = GRAVE, job: Job = JOB, payload: Payload | None = None, headers: Headers = ()
    ) -> str:
        """Add a dead letter of a job of its own, unless one is given; returns its id. Partitions take turns."""
        number, self.count = self.count, self.count + 1
        job = job if job.id else replace(job, id=f"job-{number}")
        declared = STAGES[grave.stage].sources[0]
        if payload is None:
            text = f"A question of {job.id}?"
            payload = Request(type=job.type, input=text, tenant=job.tenant, id=job.id) if declared.open_topic else None
        value = await self.codec.encode(declared.noun, payload or RetrievedContext(input=f"A question of {job.id}?"))
        own: tuple[Header, ...] = (
            (h.CE_ID, job.id.encode()),
            (h.CE_SUBJECT, job.id.encode()),
            (h.TRACEPARENT, f"00-{TRACE}-b7ad6b7169203331-01".encode()),
            *h.job_headers(job),
        )
        place = Position(names.topic(PREFIX, declared.noun, declared.lanes[0]), number % self.partitions, number)
        first = Record(*place, b"a key", value, () if declared.open_topic else own, 1_700_000_000_000 + number)
        told = dead_headers(first, Origin(place, first.timestamp_ms), Tries(3), grave)
        return self.put(f"p.{grave.stage}.dlq", (*told, *headers), value, number % self.partitions)

    def put(self, topic: str, headers: Headers, value: bytes | None, partition: int = 0) -> str:
        """Add a record to a dead-letter topic as it is; returns its letter's id."""
        place = self.broker.append(Outgoing(topic, b"a key", value, headers, partition))
        (record,) = (one for one in self.broker.records(topic) if one.position == place)
        return read_head(record).id


@asynccontextmanager
async def letter_world(partitions: int = 2) -> AsyncIterator[LetterWorld]:
    """A world with all topics; at the end no reader of it is open."""
    world = LetterWorld(partitions)
    await world.create()
    yield world
    assert world.readers == []

"""A world for the delivery log: topics in memory with real records in them, as `notify` and `deliver` leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.topics import TopicSpec
from pipeline.core.event import Event
from pipeline.core.headers import Origin
from pipeline.core.job import Job
from pipeline.core.payloads import Audit, Delivery, JobPayload, Message, Result
from pipeline.core.ports import Clock
from pipeline.core.record import Outgoing, Position
from pipeline.core.trace import root
from pipeline.devkit.clock import wall
from pipeline.ops.deliveries import DeliveryLog, Entry, Wanted
from pipeline.ops.resend import Resender, Sources
from pipeline.resources import resource
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

CODEC = AvroCodec(load_schemas(resource("schemas")))
ROUTES = {"p.results": "p.notify.retry.5s", "p.messages": "p.deliver.retry.10s"}
TOPICS = ("p.results", "p.messages", "p.deliveries", *ROUTES.values())
PARTITIONS = 2
ALL, BEFORE = Wanted(), Position("p.before", 0, 0)


def nothing(what: str, done: int, total: int) -> None:
    """Show no progress."""


class World:
    """Topics of two partitions. Every id that is written ends in the partition's number, and is read back by it."""

    def __init__(self, clock: Clock = wall) -> None:
        """Begin without topics."""
        self.clock = clock
        self.broker = MemoryBroker(clock)
        self.audited: list[Audit] = []

    async def open(self) -> World:
        """Make the topics."""
        await self.broker.create_topics([TopicSpec(name, PARTITIONS) for name in TOPICS])
        return self

    # -------------------------------------------------------------- what stands there

    async def result(self, job: str, partition: int = 0, **fields: Any) -> Position:
        """Write a result, whose event's id is `<job>-result`; returns where it stands."""
        given: dict[str, Any] = {
            "answer": "yes",
            "model": "m",
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }
        payload = Result(**(given | {"cost_usd": 0.0, "latency_ms": 1} | fields))
        return await self._write("results", payload, _event(job, f"{job}-result"), partition)

    async def message(self, job: str, partition: int = 0) -> Position:
        """Write a message, whose webhook's id is `<job>-result`, and its event's `<job>-message`."""
        payload = Message(endpoint="crm", webhook_id=f"{job}-result", kind="job.completed", body="{}")
        return await self._write("messages", payload, _event(job, f"{job}-message"), partition)

    async def delivery(self, job: str, outcome: Any, source: Position, *, run: int = 0, **fields: Any) -> Position:
        """Write an entry of the log about `<job>-result`, from the record at `source`."""
        given: dict[str, Any] = {
            "webhook_id": f"{job}-result",
            "kind": "job.completed",
            "outcome": outcome,
            "endpoint": "crm",
        }
        payload = Delivery(**(given | {"finished_at_ms": 1} | fields))
        return await self._write("deliveries", payload, _event(job, "delivery", source, run), source.partition)

    async def _write(self, noun: str, payload: JobPayload, event: Event[JobPayload], partition: int) -> Position:
        value = await CODEC.encode(noun, payload)
        headers = (*event.headers(noun, self.clock()), ("theirs", b"\xff"))
        return self.broker.append(Outgoing(f"p.{noun}", b"key", value, headers, partition))

    # -------------------------------------------------------------- who looks

    def log(self) -> DeliveryLog:
        """Open the log."""
        return DeliveryLog(self.broker.reader(), self.broker, CODEC, "p.deliveries", nothing)

    async def entries(self, wanted: Wanted = ALL) -> list[Entry]:
        """Read all entries that are meant."""
        return [entry async for entry in self.log().entries(wanted)]

    def resender(self) -> Resender:
        """Open what sends again."""
        sources = Sources(self.broker.reader(), CODEC, ROUTES, "p.messages")
        return Resender(sources, self.broker.producer(), self._audit, nothing, self.clock)

    async def _audit(self, records: Sequence[Audit]) -> None:
        self.audited += records


def _event(job: str, name: str, source: Position = BEFORE, run: int = 0) -> Event[JobPayload]:
    return Event(name, Job(job, run=run), JobPayload(), b"key", root(job), Origin(source, 0))

"""Writing to topics from outside of the stages: what `submit` and the demo send, as any service could, what people do.

All of it is acknowledged by the broker before anybody is told that it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.control import Entry
from pipeline.core.job import DEFAULT_TENANT, job_id
from pipeline.core.payloads import Audit, Document, Payload, Request
from pipeline.core.ports import Codec, Producer
from pipeline.core.record import Header, Outgoing

AUDIT_NOUN = "audit"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes requests and documents, and returns when the broker has acknowledged them.

    `source` becomes `ce_source`: with a request's id it makes the job's identity, so sending a request twice is safe.
    """

    producer: Producer
    codec: Codec
    prefix: str
    source: str = "pipeline-submit"

    async def request(self, request: Request) -> str:
        """Send a request; returns the id of its job. Without an id of its own it gets a random one."""
        ce_id = request.id or str(uuid4())
        job = job_id(request.tenant or DEFAULT_TENANT, self.source, ce_id)
        headers: Sequence[Header] = (
            (h.CE_SPECVERSION, b"1.0"),
            (h.CE_ID, ce_id.encode("ascii", "replace")),
            (h.CE_SOURCE, self.source.encode("ascii")),
            (h.CE_TYPE, b"pipeline.requests"),
        )
        await self._send("requests", (request.key or job).encode(), request, headers)
        return job

    async def document(self, document: Document) -> None:
        """Send one state of a document."""
        await self._send("documents", f"{document.source}/{document.id}".encode(), document)

    async def control(self, entries: Sequence[Entry]) -> None:
        """Write entries of the control topic; an entry without content takes what stands under its key back."""
        for key, entry in entries:
            await self._send("control", key.encode(), entry)

    async def audit(self, records: Sequence[Audit]) -> None:
        """Write down what somebody has done, by its subject; returns when all of it is acknowledged."""
        topic = names.topic(self.prefix, AUDIT_NOUN)
        await write_all(self.producer, [await audit_record(self.codec, topic, one) for one in records])

    async def _send(self, noun: str, key: bytes, payload: Payload | None, headers: Sequence[Header] = ()) -> None:
        value = None if payload is None else await self.codec.encode(noun, payload)
        await write_all(self.producer, [Outgoing(names.topic(self.prefix, noun), key, value, tuple(headers))])


async def send_all(producer: Producer, records: Sequence[Outgoing]) -> Sequence[Exception]:
    """Write records and wait until the broker has acknowledged or refused each; returns the refusals."""
    waiting, refusals = len(records), list[Exception]()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def delivered(error: Exception | None) -> None:
        nonlocal waiting
        waiting -= 1
        if error is not None:
            refusals.append(error)
        if not waiting and not done.done():
            done.set_result(None)

    for record in records:
        producer.send(record, delivered)
    if records:
        await done
    return refusals


async def write_all(producer: Producer, records: Sequence[Outgoing]) -> int:
    """Write records as `send_all` does; returns how many there were. Raises the first refusal."""
    if refusals := await send_all(producer, records):
        raise refusals[0]
    return len(records)


async def audit_record(codec: Codec, topic: str, audit: Audit) -> Outgoing:
    """Spell what somebody does. By its subject as key, on the only partition."""
    return Outgoing(topic, audit.subject.encode(), await codec.encode(AUDIT_NOUN, audit), (), 0)

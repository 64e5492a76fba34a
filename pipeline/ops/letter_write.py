"""Writing what was done about dead letters, acknowledged by the broker before anybody is told that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pipeline.core.payloads import Audit
from pipeline.core.ports import Codec, Producer
from pipeline.core.record import Outgoing

AUDIT_NOUN = "audit"


async def write_all(producer: Producer, records: Iterable[Outgoing]) -> int:
    """Write records and wait until all are acknowledged; returns how many there were. Raises the first refusal."""
    loop, waiting, refusals = asyncio.get_running_loop(), 0, list[Exception]()
    done: asyncio.Future[None] = loop.create_future()

    def delivered(error: Exception | None) -> None:
        nonlocal waiting
        waiting -= 1
        if error is not None:
            refusals.append(error)
        if not waiting and not done.done():
            done.set_result(None)

    sent = list(records)
    waiting = len(sent)
    for record in sent:
        producer.send(record, delivered)
    if sent:
        await done
    if refusals:
        raise refusals[0]
    return len(sent)


async def write_audit(producer: Producer, codec: Codec, topic: str, audit: Audit) -> None:
    """Write what somebody does, and wait for the acknowledgement. By its subject as key, on the only partition."""
    value = await codec.encode(AUDIT_NOUN, audit)
    await write_all(producer, [Outgoing(topic, audit.subject.encode(), value, (), 0)])

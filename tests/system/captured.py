"""The recorded changes of a real database, as records to be written to a topic of one's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.record import Outgoing
from tests.system.site import Site

CAPTURED = Path(__file__).parents[1] / "data" / "cdc"
FILES = (
    "01-snapshot",
    "02-insert",
    "03-update",
    "04-update-toast-unchanged.full-identity",
    "06-delete.full-identity",
    "08-primary-key-change",
    "11-transaction-mixed",
    "13-same-key-reinserted",
)


def changes(topic: str, *files: str) -> list[Outgoing]:
    """Read the records of one table, in the order of their log, to be written to `topic`; a null of both at the end."""
    lines = [json.loads(line) for name in files for line in (CAPTURED / f"{name}.jsonl").read_text().splitlines()]
    rows = [
        Outgoing(
            topic,
            None if one["key"] is None else one["key"].encode(),
            None if one["value"] is None else one["value"].encode(),
            tuple((name, None if text is None else text.encode()) for name, text in one["headers"]),
            one["partition"],
        )
        for one in lines
        if one["topic"] == "app.public.documents"
    ]
    return [*rows, Outgoing(topic, None, None, (), 1)]


async def write(place: Site, records: Sequence[Outgoing]) -> None:
    """Write records, and hear of each that the broker has it."""
    async with place.desk() as desk:
        for record in records:
            done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            desk.producer.send(record, done.set_result)
            assert await done is None

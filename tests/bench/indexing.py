"""P9: how fast the index takes documents in, against a loop that writes the same points."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from pipeline.clients.passage_points import Embedder
from pipeline.core.event import Event
from pipeline.core.payloads import Document
from pipeline.core.stage import Context
from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.index_stage import (
    COLLECTION,
    PARTITIONS,
    TENANT,
    DocumentHandler,
    Remembering,
    index_stage,
    opened_index,
    prose,
)
from tests.bench.input import open_writer
from tests.bench.lab import Stand

SENTENCES = 20
"""How long a text is: it has four or five chunks."""

_BARE, _OURS = _NAMES = ("bare upserts", "our index path")

Batches = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast documents went in, and what each cost of this process's CPU time, in seconds."""

    rate: float
    cpu: float


class Stretch:
    """Measures from the first of `count` events that a handler is given on; `handled` is set after the last."""

    def __init__(self, count: int) -> None:
        """Measure nothing yet."""
        self.handled = asyncio.Event()
        self._count = self._left = count
        self._from: tuple[float, float] | None = None

    def around(self, handler: DocumentHandler) -> DocumentHandler:
        """Watch `handler`."""

        async def watched(event: Event[Document], ctx: Context) -> Sequence[Any]:
            self.begin()
            outputs = await handler(event, ctx)
            self._left -= 1
            if not self._left:
                self.handled.set()
            return outputs

        return watched

    def begin(self) -> None:
        """Begin, unless that was done."""
        self._from = self._from or (time.perf_counter(), time.process_time())

    def pace(self) -> Pace:
        """Say what it came to."""
        assert self._from is not None, "nothing was measured"
        began, cpu = self._from
        return Pace(self._count / (time.perf_counter() - began), (time.process_time() - cpu) / self._count)


async def taken_in(stand: Stand) -> list[Figure]:
    """P9-indexing: from changes on a topic to documents in the embedded index, against upserts of the same points."""
    count, topic = 30 if stand.lab.quick else 100, f"source-{uuid4().hex[:8]}"
    bm25, chance, paces = Remembering(), random.Random(9), {name: list[Pace]() for name in _NAMES}
    async with stand.topics([topic], PARTITIONS):
        await asyncio.to_thread(_write, stand.servers, topic, count)
        # A first round is not counted: it warms up, and notes the batches.
        _, batches = await _ours(stand, topic, count, bm25)
        for number in range(1, stand.lab.rounds + 1):
            for name in chance.sample(_NAMES, len(_NAMES)):
                once = _bare(stand, batches, count) if name == _BARE else _ours(stand, topic, count, bm25)
                paces[name].append((await once)[0])
                _tell(f"{number}/{stand.lab.rounds}", name, paces[name][-1:])
    for name in _NAMES:
        _tell("median", name, paces[name])
    points = sum(map(len, batches))
    against = "our path without embedding against bare upserts"
    what = f"documents/s into the embedded index ({points / count:.1f} points each), {against}"
    bare, ours = ([one.rate for one in paces[name]] for name in _NAMES)
    return [at_least("P9-indexing", what, 0.8, ratios(ours, bare))]


async def _ours(stand: Stand, topic: str, count: int, bm25: Embedder) -> tuple[Pace, Batches]:
    stretch = Stretch(count)
    with _folder(stand) as folder:
        async with (
            opened_index(folder) as index,
            index_stage(stand, topic, index.live(bm25), stretch.around) as stage,
        ):
            await stage.until(stretch.handled, count)
            return stretch.pace(), index.client.batches


async def _bare(stand: Stand, batches: Batches, count: int) -> tuple[Pace, Batches]:
    stretch = Stretch(count)
    with _folder(stand) as folder:
        async with opened_index(folder) as index:
            stretch.begin()
            for batch in batches:
                await index.run(index.client.upsert(COLLECTION, batch, wait=True))
            return stretch.pace(), batches


@contextmanager
def _folder(stand: Stand) -> Iterator[Path]:
    folder = stand.lab.path("index")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(servers: str, topic: str, count: int) -> None:
    """Write changes as Debezium does: so many rows that were created."""
    writer, draw = open_writer(servers, 5), random.Random(10)
    for number in range(count):
        key = {"id": f"row-{number:05d}"}
        row = {**key, "tenant": TENANT, "title": f"Shelf {number}", "body": prose(draw, SENTENCES), "updated_at": None}
        now = time.time_ns() // 1_000_000
        source = {"connector": "postgresql", "name": "app", "ts_ms": now, "snapshot": "false", "lsn": 1000 + number}
        value = {"before": None, "after": row, "source": source, "transaction": None, "op": "c", "ts_ms": now}
        writer.produce(topic, json.dumps(value), json.dumps(key), number % PARTITIONS)
    if left := writer.flush(30):
        raise Failed(f"{left} of {count} changes were not written")


def _tell(which: str, name: str, paces: Sequence[Pace]) -> None:
    rate, cpu = median(one.rate for one in paces), median(one.cpu for one in paces) * 1000
    print(f"  {which:<6} {name:<18} {rate:>9,.0f} documents/s {cpu:>7.2f} ms CPU a document", flush=True)

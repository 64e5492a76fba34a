"""The index stage on changes of a table, in this process, on an embedded index that whoever measures can look into."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from prometheus_client import CollectorRegistry
from qdrant_client import AsyncQdrantClient, models

from pipeline import topology, wiring
from pipeline.broker.kafka_consumer import open_consumer
from pipeline.broker.kafka_producer import open_producer
from pipeline.clients.measured_store import MeasuredStore
from pipeline.clients.passage_collection import Collection
from pipeline.clients.passage_live import LivePassages
from pipeline.clients.passage_points import Embedder
from pipeline.clients.qdrant import OneThread
from pipeline.core.payloads import Document
from pipeline.core.stage import Handler
from pipeline.core.tables import parse_tables
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Environment, load
from pipeline.stages.index import Index
from pipeline.telemetry.metrics import IndexMetrics, StageMetrics
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.debezium_rereads import RereadRows
from pipeline.world import kafka_of
from tests.bench.lab import Stand
from tests.bench.worker import DRAIN_SECONDS, reasons
from tests.system.site import TABLES

COLLECTION, LIVE = "passages", "live"
TENANT = "acme"
PARTITIONS = 3

_STAGE = next(one for one in topology.STAGES if one.name == "index")
_WORDS = 16
_STEMS = [f"{a}{b}{c}" for a in ("par", "lock", "tow", "cour") for b in ("a", "e", "i") for c in ("cel", "der", "ning")]

DocumentHandler = Handler[Document, Any]


class Noting(AsyncQdrantClient):
    """A client that notes the points of each request to write some."""

    batches: list[Any]

    async def upsert(self, collection_name: str, points: Any, *given: Any, **more: Any) -> Any:
        """Write points, and note them."""
        self.batches.append(points)
        return await super().upsert(collection_name, points, *given, **more)


class Remembering(Embedder):
    """Makes each sparse vector once, over all rounds: what is measured is the index without the embedding."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        super().__init__()
        self._known: dict[tuple[str, str], models.SparseVector] = {}

    def document(self, title: str, text: str) -> models.SparseVector:
        """Embed a chunk, or remember how it was embedded."""
        return self._known.get((title, text)) or self._known.setdefault((title, text), super().document(title, text))


@dataclass(frozen=True, slots=True)
class Place:
    """An embedded index, the client that it is written with, and where that runs.

    `collection` is for bare writes; `live` is the index as stages open it.
    """

    client: Noting
    collection: Collection
    run: OneThread

    def live(self, bm25: Embedder | None = None) -> LivePassages:
        """Open the index as stages do, in a collection of its own."""
        return LivePassages(Collection(self.client, LIVE, self.run, wiring.CLOCK, indexed=False), bm25)


@dataclass(frozen=True, slots=True)
class Running:
    """A stage at work."""

    registry: CollectorRegistry
    working: asyncio.Task[int]

    def settled(self) -> int:
        """Count the records that are settled as they should be: without an output."""
        labels = {"stage": _STAGE.name, "end": "nothing"}
        return int(self.registry.get_sample_value("pipeline_records_settled_total", labels) or 0)

    async def until(self, handled: asyncio.Event, count: int, seconds: float = 120.0) -> None:
        """Wait until all is handled, and then until `count` records are settled, which takes a while to look up.

        Raises TimeoutError, and whatever stopped the stage.
        """
        waiting = asyncio.create_task(handled.wait())
        async with asyncio.timeout(seconds):
            await asyncio.wait([waiting, self.working], return_when=asyncio.FIRST_COMPLETED)
            while self.settled() < count:
                if self.working.done():
                    waiting.cancel()
                    raise RuntimeError(f"the stage ended: {self.working.result()}")
                await asyncio.sleep(0.005)


@asynccontextmanager
async def opened_index(folder: Path) -> AsyncIterator[Place]:
    """Open an embedded index, as `clients.qdrant` does, with a client that notes what it writes."""
    with ThreadPoolExecutor(1, "qdrant") as thread:
        run = OneThread(thread)
        client = await run(_open(folder))
        place = Collection(client, COLLECTION, run, wiring.CLOCK, indexed=False)
        try:
            await place.prepare()
            yield Place(client, place, run)
        finally:
            await run(client.close())


async def _open(folder: Path) -> Noting:
    client = Noting(path=str(folder))
    client.batches = []
    return client


@asynccontextmanager
async def index_stage(
    stand: Stand, topic: str, index: LivePassages, watched: Callable[[DocumentHandler], DocumentHandler]
) -> AsyncIterator[Running]:
    """Run the index stage on `topic`, built as `wiring` builds it; `watched` sets a watch around its handler."""
    configured = load(Environment({"KAFKA_BOOTSTRAP_SERVERS": stand.servers}), wiring.STAGES)
    decoder = ChangeDecoder(parse_tables(yaml.safe_load(TABLES.format(topic=topic)), "the bench's tables"))
    bound = plan(_STAGE, f"bench-{uuid4().hex[:8]}", decoder.topics)
    registry, kafka = CollectorRegistry(), kafka_of(configured)
    handler = watched(
        Index(MeasuredStore(index, IndexMetrics(registry), wiring.CLOCK), RereadRows(None, None, wiring.CLOCK))
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stand.topics([one for one in bound.topics if one != topic], PARTITIONS))
        admin = await stack.enter_async_context(wiring.opened_admin(configured, print))
        kafka = kafka.with_protocol(await admin.group_protocol())
        producer = await stack.enter_async_context(open_producer(kafka))
        codec = await stack.enter_async_context(wiring.opened_codec(configured))
        consumer = await stack.enter_async_context(open_consumer(kafka, bound.group, admin.topic_ids))
        observer = Observer(StageMetrics(registry))
        kit = Kit(consumer, producer, codec, wiring.CLOCK, observer, wiring.VERSION, DRAIN_SECONDS, foreign=decoder)
        worker = Worker([Runner(bound, handler, kit)])
        working = asyncio.create_task(worker.run())
        try:
            yield Running(registry, working)
        finally:
            worker.stop()
            failed = await working
            await index.drain()
            if failed:
                raise RuntimeError(reasons(worker))


def prose(draw: random.Random, count: int) -> str:
    """Make up a text of so many sentences of about 140 characters, in paragraphs of four."""
    sentences = (" ".join(draw.choices(_STEMS, k=_WORDS)).capitalize() + "." for _ in range(count))
    return "".join(one + ("\n\n" if number % 4 == 3 else " ") for number, one in enumerate(sentences)).strip()

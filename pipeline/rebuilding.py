"""The composition of a rebuild of the index: what reads, what applies, and the collections it goes between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from pipeline import wiring
from pipeline.broker.admin import Admin
from pipeline.broker.kafka_reader import open_reader
from pipeline.core.event import receive
from pipeline.core.payloads import Document
from pipeline.core.record import Partition, Record
from pipeline.core.stage import Context, Handler
from pipeline.ops.index_apply import CountedStore, Say, Tally, lanes
from pipeline.ops.index_rebuild import IndexRebuild, Progress, Stream
from pipeline.resources import resource
from pipeline.runtime.attempt import Attempt
from pipeline.runtime.plan import Plan, plan
from pipeline.settings import Configured
from pipeline.wire.codec import AvroCodec
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.schemas import load_schemas
from pipeline.world import World, kafka_of

Apply = Callable[[Document], Awaitable[None]]


@asynccontextmanager
async def open_rebuild(configured: Configured, say: Say, progress: Progress) -> AsyncIterator[IndexRebuild]:
    """Open everything, and make the new collection, or take over one that was left.

    Raises ConfigurationError where something is missing, or another rebuild is at work.
    """
    (stage,) = wiring.chosen(["index"], configured)
    tables, tally = wiring.tables_of(configured, [stage]), Tally()
    async with AsyncExitStack() as stack:
        world = World(configured, wiring.catalog_of(configured), stack, 1, wiring.CLOCK)
        handler = await world.handler(stage)
        admin = await stack.enter_async_context(wiring.opened_admin(configured, say))
        registry = await stack.enter_async_context(wiring.opened_registry(configured))
        decoder = ChangeDecoder(tables, registry, await world.rereads()) if tables else None
        bound = plan(stage, configured.settings.topic_prefix, decoder.topics if decoder else ())
        target = await _target(world)
        store = CountedStore(await target.begin(say), tally)
        handler = replace(handler, store=store)  # type: ignore[type-var]  # every handler is a dataclass
        attempt = Attempt(bound, handler, AvroCodec(load_schemas(resource("schemas")), registry), wiring.CLOCK, decoder)
        # What an aborted transaction wrote is no change, and the ends are those that the stage itself comes to.
        reader = await stack.enter_async_context(open_reader(kafka_of(configured), "index.rebuild", committed=True))
        opened = await stack.enter_async_context(lanes(stage.concurrency, tally, say, wiring.CLOCK))
        apply = applied(handler)
        stream = Stream(reader, lambda: _partitions(admin, bound), _read(attempt, apply))
        yield IndexRebuild(target, stream, apply, opened, tally, say, progress)


@asynccontextmanager
async def open_collections(configured: Configured) -> AsyncIterator[Any]:
    """Open the collections of the index, as `clients.passage_rebuild.Collections`."""
    from pipeline.clients.passage_rebuild import Collections  # noqa: PLC0415  # 1.5 s that only a few verbs need

    async with AsyncExitStack() as stack:
        world = World(configured, wiring.catalog_of(configured), stack, 1, wiring.CLOCK)
        yield Collections((await world.passages()).aliases)


def applied(handler: Handler[Any, Any]) -> Apply:
    """Return what applies a document by the stage's own handler."""

    async def apply(document: Document) -> None:
        record = Record("", 0, 0, None, None)
        event = receive(record, document, open_topic=True, copy=False, now=wiring.CLOCK())
        await handler(event, Context(event.id, 1, None, wiring.CLOCK))

    return apply


def _read(attempt: Attempt, apply: Apply) -> Callable[[Record], Awaitable[None]]:
    async def read(record: Record) -> None:
        payload = await attempt.payload(record, copy=record.topic in attempt.plan.tiers)
        if isinstance(payload, Document):
            await apply(payload)

    return read


async def _partitions(admin: Admin, bound: Plan) -> Collection[Partition]:
    found = await admin.partitions(bound.topics)
    return [Partition(topic, number) for topic, count in found.items() for number in range(count)]


async def _target(world: World) -> Any:
    from pipeline.clients.passage_rebuild import Rebuild  # noqa: PLC0415  # 1.5 s that only a few verbs need

    return Rebuild((await world.passages()).aliases, uuid4().hex[:12])

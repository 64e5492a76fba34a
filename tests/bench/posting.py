"""What posts webhooks, measured from inside: `python -m tests.bench.posting <order>`.

`raw` is an aiohttp client that posts the same bytes, `client` our sender alone, `notify` the stage with our sender,
from results on a topic to deliveries on another.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import uvloop
from prometheus_client import CollectorRegistry

from pipeline import topology, wiring
from pipeline.broker.kafka_consumer import open_consumer
from pipeline.broker.kafka_producer import open_producer
from pipeline.clients.webhook import Address, open_webhooks
from pipeline.clients.webhook_gate import Limits
from pipeline.clients.webhook_signing import generate_secret, keys, signed_headers
from pipeline.core.catalog import Catalog
from pipeline.core.ports import WebhookMessage
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Configured, Environment, load
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import StageMetrics
from pipeline.world import World, kafka_of
from tests.bench.meter import Meter, Sample
from tests.bench.runtime import LOOK_SECONDS, measured
from tests.bench.worker import DRAIN_SECONDS, Counts, Fetched

IN_FLIGHT = 64
BODY = json.dumps({"type": "job.completed", "data": {"answer": "A parcel is kept for ten days. " * 40}}).encode()
STAGE = next(one for one in topology.STAGES if one.name == "notify")

Post = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run of a variant: where to post, where the results are, how long, and where the sample goes."""

    variant: str
    url: str
    servers: str
    prefix: str
    seconds: float
    available: int
    result: Path

    def argument(self) -> str:
        """Spell the order as this program reads it."""
        return json.dumps({**asdict(self), "result": str(self.result)})


async def post_for_ever(post: Post, meter: Meter) -> Sample:
    """Keep `IN_FLIGHT` posts in flight until enough is measured."""
    done = 0

    async def one_after_the_other(number: int) -> None:
        nonlocal done
        while True:
            await post(f"11111111-2222-5333-8444-{number:04d}{done:08d}")
            done += 1

    posting = [asyncio.create_task(one_after_the_other(number)) for number in range(IN_FLIGHT)]
    while not meter.note(done) and not any(one.done() for one in posting):
        await asyncio.sleep(LOOK_SECONDS)
    for one in posting:
        one.cancel()
    for ended in await asyncio.gather(*posting, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    return meter.sample(done)


@asynccontextmanager
async def raw(order: Order) -> AsyncIterator[Post]:
    """Open the least that posts: the headers are made once."""
    headers = signed_headers(WebhookMessage("", "id", BODY), keys(generate_secret()), time.time())
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)

    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(_id: str) -> None:
            async with session.post(order.url, data=BODY, headers=headers) as response:
                await response.read()
                response.raise_for_status()

        yield post


@asynccontextmanager
async def client(order: Order) -> AsyncIterator[Post]:
    """Open our sender."""
    address = Address(order.url, generate_secret(), limits=Limits(IN_FLIGHT))
    async with open_webhooks({"default": address}, allow_loopback=True, clock=time.time) as sender:

        async def post(name: str) -> None:
            answer = await sender.post(WebhookMessage("default", name, BODY))
            if answer.refusal:
                raise answer.refusal

        yield post


async def notify(order: Order, meter: Meter) -> Sample:
    """Run the stage, built as `wiring` builds it, in a group of its own."""
    configured = load(
        Environment(
            {
                "KAFKA_BOOTSTRAP_SERVERS": order.servers,
                "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS": "1",
                "WEBHOOK_URL": order.url,
                "WEBHOOK_SECRET": generate_secret(),
            }
        ),
        wiring.STAGES,
    )
    bound, kafka, registry = plan(STAGE, order.prefix), kafka_of(configured), CollectorRegistry()
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(wiring.opened_admin(configured, print))
        kafka = kafka.with_protocol(await admin.group_protocol())
        producer = await stack.enter_async_context(open_producer(kafka))
        codec = await stack.enter_async_context(wiring.opened_codec(configured))
        consumer = await stack.enter_async_context(
            open_consumer(kafka, f"{bound.group}.{time.monotonic_ns()}", admin.topic_ids)
        )
        handler = await World(configured, _catalog(configured), stack, 1, wiring.CLOCK).handler(STAGE)
        observer = Observer(StageMetrics(registry))
        kit = Kit(consumer, producer, codec, wiring.CLOCK, observer, wiring.VERSION, DRAIN_SECONDS)
        worker = Worker([Runner(bound, handler, kit)])
        return await measured(worker, Counts(registry, STAGE.name), meter, Fetched())


def _catalog(configured: Configured) -> Catalog:
    """Let the endpoint take as many at once as the other variants have in flight."""
    catalog = wiring.catalog_of(configured)
    wide = {name: one.model_copy(update={"concurrency": IN_FLIGHT}) for name, one in catalog.endpoints.items()}
    return catalog.model_copy(update={"endpoints": wide})


async def run(order: Order) -> Sample:
    """Run a variant until enough is measured."""
    meter = Meter(order.seconds, order.available)
    if order.variant == "notify":
        return await notify(order, meter)
    async with raw(order) if order.variant == "raw" else client(order) as post:
        return await post_for_ever(post, meter)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    given = Order(**{**told, "result": Path(told["result"])})
    logs.configure("json", "WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(given)).write(given.result)

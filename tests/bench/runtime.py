"""Our runtime with a handler of next to no work, built as `wiring` builds a worker. `python -m tests.bench.runtime`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from pipeline import wiring
from pipeline.broker.kafka import open_consumer, open_producer
from pipeline.core.event import Event
from pipeline.core.payloads import Payload, RetrievedContext
from pipeline.core.ports import Codec
from pipeline.core.stage import Context, Stage, Topic, stage
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Environment, load
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import StageMetrics
from tests.bench.meter import Meter, Sample
from tests.bench.order import NOUN, Order, new_group, received

NAME = "noop"
LOOK_SECONDS = 0.02
DRAIN_SECONDS = 1.0

P = TypeVar("P", bound=Payload)


class Raw(Payload):
    """A value nobody looks into."""

    value: bytes


class RawCodec:
    """Passes values through: what is left is the runtime."""

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        """Wrap the bytes."""
        return Raw.model_construct(value=value)  # type: ignore[return-value]  # the stage is declared with Raw

    async def encode(self, noun: str, payload: Payload) -> bytes:
        """Unwrap the bytes."""
        return payload.value if isinstance(payload, Raw) else b""


@dataclass(frozen=True, slots=True)
class Noop:
    """Returns what it is given."""

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Do nothing."""
        return (event.payload,)


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits as a call of somebody else's service does; one key's call never ends."""

    seconds: float
    stuck: bytes

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Wait, then return what was given."""
        if event.key == self.stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(self.seconds)
        return (event.payload,)


def declared(order: Order) -> Stage:
    """Declare the stage: from a topic to the lane of the same noun."""
    handler = Wait(order.wait, order.stuck.encode()) if order.wait else Noop()
    payload: type[Payload] = RetrievedContext if order.avro else Raw
    source, output = Topic(NOUN, payload), Topic(NOUN, payload, laned=True)
    return stage(NAME, source, output, lambda: handler, concurrency=order.concurrency)


async def run(order: Order) -> Sample:
    """Run the stage until enough is measured."""
    configured = load(Environment({"KAFKA_BOOTSTRAP_SERVERS": order.servers}), wiring.STAGES)
    kafka, registry = wiring.kafka_of(configured), CollectorRegistry()
    bound = replace(plan(declared(order), order.prefix), group=new_group(), prefix=order.output_prefix)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(wiring.opened_admin(configured, print))
        kafka = kafka.with_protocol(await admin.group_protocol())
        producer = await stack.enter_async_context(open_producer(kafka))
        codec: Codec = await stack.enter_async_context(wiring.opened_codec(configured)) if order.avro else RawCodec()
        consumer = await stack.enter_async_context(open_consumer(kafka, bound.group))
        observer = Observer(StageMetrics(registry))
        kit = Kit(consumer, producer, codec, wiring.CLOCK, observer, wiring.VERSION, DRAIN_SECONDS)
        return await measured(
            Runner(bound, bound.stage.handler(), kit), registry, Meter(order.seconds, order.available)
        )


async def measured(runner: Runner, registry: CollectorRegistry, meter: Meter) -> Sample:
    """Look at a running stage from time to time; what it counts itself costs it nothing more."""

    def settled() -> int:
        labels = {"stage": NAME, "end": "output"}
        return int(registry.get_sample_value("pipeline_records_settled_total", labels) or 0)

    worker = Worker([runner])
    working = asyncio.create_task(worker.run())
    while not working.done() and not meter.note(settled()):
        await asyncio.sleep(LOOK_SECONDS)
    worker.stop()
    if await working:
        raise RuntimeError(runner.reason)
    return meter.sample(settled())


if __name__ == "__main__":
    told = received()
    logs.configure("json", "WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(told)).write(told.result)

"""Our runtime with a handler of next to no work, measured while it runs. `python -m tests.bench.runtime`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from pipeline.runtime.worker import Worker
from pipeline.telemetry import logs
from tests.bench.meter import Meter, Sample
from tests.bench.order import Order, received
from tests.bench.worker import Counts, Fetched, bound, opened, reasons

LOOK_SECONDS = 0.02


async def run(order: Order) -> Sample:
    """Run the stage until enough is measured."""
    registry, fetched = CollectorRegistry(), Fetched()
    async with opened(order, [bound(order)], registry, fetched if order.fetches else None) as worker:
        return await measured(worker, Counts(registry), Meter(order.seconds, order.available), fetched)


async def measured(worker: Worker, counts: Counts, meter: Meter, fetched: Fetched) -> Sample:
    """Look at a running stage from time to time."""
    working = asyncio.create_task(worker.run())
    while not working.done() and not meter.note(counts.settled()):
        await asyncio.sleep(LOOK_SECONDS)
    each = fetched.records / max(1, counts.taken())
    worker.stop()
    if await working:
        raise RuntimeError(reasons(worker))
    return replace(meter.sample(counts.settled()), fetched=each)


if __name__ == "__main__":
    told = received()
    logs.configure("json", "WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(told)).write(told.result)

"""Our runtime as a member of a group until SIGTERM, telling how it stands. `python -m tests.bench.member`.

Leaves the calls of its handler, where the order says to watch them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import uvloop
from prometheus_client import CollectorRegistry

from pipeline.runtime.worker import Worker
from pipeline.telemetry import logs
from tests.bench import calls
from tests.bench.handlers import Watched, handler_of
from tests.bench.order import Order, received
from tests.bench.status import Status, Teller
from tests.bench.worker import Counts, bound, opened, reasons


async def run(order: Order) -> None:
    """Run the stage until told to stop."""
    registry, handler = CollectorRegistry(), handler_of(order)
    async with opened(order, [bound(order, handler)], registry) as worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        if await told_of(worker, Counts(registry), Teller(order.status), order.look):
            raise RuntimeError(reasons(worker))
    if isinstance(handler, Watched):
        calls.write(handler.calls, order.result)


async def told_of(worker: Worker, counts: Counts, teller: Teller, look: float) -> int:
    """Run a worker to its end, telling how it stands; returns its exit code."""
    began, first = time.monotonic(), 0.0
    working = asyncio.create_task(worker.run())
    while not working.done():
        settled, gauges = counts.settled(), counts.gauges()
        running = gauges.get("handlers_running", 0)
        first = first or (time.monotonic() if running or settled else 0.0)
        status = Status(
            began=began,
            first=first,
            settled=settled,
            open=gauges.get("window_records", 0),
            running=running,
            partitions=gauges.get("partitions_assigned", 0),
        )
        teller.tell(status)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(working), look)
    return await working


if __name__ == "__main__":
    told = received()
    logs.configure("json", "WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(told))

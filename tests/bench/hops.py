"""Five stages of our runtime in one process, chained by topics, until SIGTERM. `python -m tests.bench.hops`."""

from __future__ import annotations

import asyncio
import signal

import uvloop
from prometheus_client import CollectorRegistry

from pipeline.core.payloads import Payload
from pipeline.core.stage import Stage, Topic, stage
from pipeline.runtime.plan import Plan, plan
from pipeline.telemetry import logs
from tests.bench.handlers import Noop, Raw
from tests.bench.order import Order, received
from tests.bench.worker import opened, reasons

HOPS = 5


def noun(number: int) -> str:
    """Name what the topic before hop `number` carries; the last number is that of the topic after all hops."""
    return f"hop{number}"


def plans(prefix: str) -> list[Plan]:
    """Bind the chain's stages, each with a group of its own."""
    return [plan(_declared(number), prefix) for number in range(HOPS)]


def _declared(number: int) -> Stage:
    payload: type[Payload] = Raw
    return stage(f"hop{number}", Topic(noun(number), payload), Topic(noun(number + 1), payload), Noop)


async def run(order: Order) -> None:
    """Run the chain until told to stop."""
    async with opened(order, plans(order.prefix), CollectorRegistry()) as worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        if await worker.run():
            raise RuntimeError(reasons(worker))


if __name__ == "__main__":
    told = received()
    logs.configure("json", "WARNING")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(told))

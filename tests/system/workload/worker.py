"""One worker: the chosen variants in one process, built as `wiring` builds one. Ends by SIGTERM, as `pipeline run`.

`python -m tests.system.workload.worker <order>`
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

import uvloop
from prometheus_client import CollectorRegistry

from pipeline.broker.admin import open_admin
from pipeline.broker.config import SERVERS, GroupProtocol, KafkaConfig
from pipeline.broker.kafka import open_consumer, open_producer
from pipeline.runtime.observe import Observer
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import StageMetrics
from tests.system.workload.notes import NoteCodec
from tests.system.workload.variants import chosen

STARTUP_SECONDS = 60.0
DRAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker's process is told."""

    servers: str
    prefix: str
    protocol: GroupProtocol
    variants: tuple[str, ...]

    @property
    def kafka(self) -> KafkaConfig:
        """How to speak to the broker."""
        # A classic group stands still while one of its members is missed: let that be for as short as a broker allows.
        quick = {"session.timeout.ms": "6000"} if self.protocol == "classic" else {}
        return KafkaConfig({SERVERS: self.servers, **quick}).with_protocol(self.protocol)

    def argument(self) -> str:
        """Spell the order as `received` reads it."""
        return json.dumps(asdict(self))


def received() -> Order:
    """Read the order that this process was started with."""
    told = json.loads(sys.argv[1])
    return Order(**{**told, "variants": tuple(told["variants"])})


async def run(order: Order) -> int:
    """Run the stages until told to stop; returns the exit code, 1 where a stage has halted."""
    kafka, observer = order.kafka, Observer(StageMetrics(CollectorRegistry()))
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(open_admin(kafka))
        await admin.wait_for_broker(STARTUP_SECONDS, lambda _: None)
        producer = await stack.enter_async_context(open_producer(kafka))
        runners = []
        for variant in chosen(order.variants):
            bound = variant.plan(order.prefix)
            consumer = await stack.enter_async_context(open_consumer(kafka, bound.group))
            kit = Kit(consumer, producer, NoteCodec(), time.time, observer, "workload", DRAIN_SECONDS)
            runners.append(Runner(bound, bound.stage.handler(), kit))
        worker = Worker(runners)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        return await worker.run()


if __name__ == "__main__":
    logs.configure("json", "INFO")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        sys.exit(loop.run(run(received())))

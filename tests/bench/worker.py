"""A worker of our runtime, built as `wiring` builds one, with the stage of a benchmark."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry

from pipeline import wiring
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka import open_consumer, open_producer
from pipeline.broker.kafka_transactions import open_transactions
from pipeline.core.payloads import Payload, RetrievedContext
from pipeline.core.ports import Codec
from pipeline.core.stage import Handler, Stage, Topic, stage
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Environment, load
from pipeline.telemetry.metrics import StageMetrics
from pipeline.world import kafka_of
from tests.bench.handlers import Raw, RawCodec, handler_of
from tests.bench.order import NOUN, Order, new_group

NAME = "noop"
DRAIN_SECONDS = 1.0
_STATISTICS_MS = "200"


def declared(order: Order, handler: Handler[Payload, Payload] | None = None) -> Stage:
    """Declare the stage: from a topic to the lane of the same noun."""
    payload: type[Payload] = RetrievedContext if order.avro else Raw
    source, output = Topic(NOUN, payload), Topic(NOUN, payload, laned=True)
    made = handler or handler_of(order)
    return stage(NAME, source, output, lambda: made, concurrency=order.concurrency, delivery=order.delivery)


def bound(order: Order, handler: Handler[Payload, Payload] | None = None) -> Plan:
    """Bind the stage: it reads below one prefix and writes below another."""
    there = plan(declared(order, handler), order.prefix)
    return replace(there, group=order.group or new_group(), prefix=order.output_prefix)


class Fetched:
    """Counts the records that a client has fetched and that do not wait in it any more: handed over, or thrown away.

    A pause throws away what waits, and it is fetched again later. The numbers are from the client's own statistics.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self.records = 0

    def __call__(self, statistics: str) -> None:
        """Hear of the client's statistics, which it spells as JSON."""
        told = json.loads(statistics)
        parts = [part for topic in told["topics"].values() for part in topic["partitions"].values()]
        # The partitions' queues lead into one, whose length each of them tells.
        self.records = int(told["rxmsgs"]) - max((int(part["fetchq_cnt"]) for part in parts), default=0)

    def counting(self, kafka: KafkaConfig) -> KafkaConfig:
        """Return the same configuration for a client that reports here."""
        reports: dict[str, Any] = {"statistics.interval.ms": _STATISTICS_MS, "stats_cb": self}
        return replace(kafka, overrides={**kafka.overrides, **reports})


@dataclass(frozen=True, slots=True)
class Counts:
    """What the runtime counts about one stage."""

    registry: CollectorRegistry
    name: str = NAME

    def settled(self) -> int:
        """Return the number of records that led to an output."""
        labels = {"stage": self.name, "end": "output"}
        return int(self.registry.get_sample_value("pipeline_records_settled_total", labels) or 0)

    def taken(self) -> int:
        """Return the number of records that the stage has taken from its topics."""
        return int(self.registry.get_sample_value("pipeline_records_taken_total", {"stage": self.name}) or 0)

    def gauges(self) -> Mapping[str, int]:
        """Return all values that are of the stage as a whole, by their names without what all names begin with."""
        return {
            sample.name.removeprefix("pipeline_"): int(sample.value)
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.labels == {"stage": self.name}
        }


@asynccontextmanager
async def opened(
    order: Order, plans: Sequence[Plan], registry: CollectorRegistry, fetched: Fetched | None = None
) -> AsyncIterator[Worker]:
    """Open a worker that runs `plans`, with one producer for all and a consumer for each."""
    configured = load(Environment({"KAFKA_BOOTSTRAP_SERVERS": order.servers}), wiring.STAGES)
    kafka = kafka_of(configured)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(wiring.opened_admin(configured, print))
        kafka = kafka.with_protocol(await admin.group_protocol())
        producer = await stack.enter_async_context(open_producer(kafka))
        codec: Codec = await stack.enter_async_context(wiring.opened_codec(configured)) if order.avro else RawCodec()
        observer = Observer(StageMetrics(registry))
        reading = fetched.counting(kafka) if fetched else kafka
        runners = []
        for one in plans:
            consumer = await stack.enter_async_context(open_consumer(reading, one.group))
            kit = Kit(consumer, producer, codec, wiring.CLOCK, observer, wiring.VERSION, DRAIN_SECONDS)
            if one.stage.delivery == "exactly once":
                transactions = open_transactions(kafka, one.group, f"{one.group}.{uuid4().hex}")
                kit = replace(kit, transactions=await stack.enter_async_context(transactions))
            runners.append(Runner(one, one.stage.handler(), kit))
        yield Worker(runners)


def reasons(worker: Worker) -> str:
    """Say why stages of a worker halted."""
    return "; ".join(runner.reason for runner in worker.runners if runner.reason)

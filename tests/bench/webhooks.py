"""P8: how many webhooks go out, by our sender and by the whole stage, against the least that posts."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from uuid import uuid4

from pipeline.core import names
from pipeline.core.payloads import Result
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.ports import HOST
from pipeline.resources import resource
from pipeline.runtime.plan import plan
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from tests.bench import meter
from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_least, ratios
from tests.bench.input import PARTITIONS, headers, key, open_writer
from tests.bench.lab import Stand
from tests.bench.meter import Sample
from tests.bench.posting import STAGE, Order

PROGRAM = "tests.bench.posting"
HOOKS = "tests.bench.hooks"
VARIANTS = ("raw", "client", "notify")
READY_SECONDS = 20.0


async def delivered(stand: Stand) -> list[Figure]:
    """P8-webhooks: deliveries a second of a core, from results on a topic; and our sender alone against bare posts."""
    prefix, count = f"bench-{uuid4().hex[:8]}", 3_000 if stand.lab.quick else 40_000
    results = names.topic(prefix, "results")
    bound = plan(STAGE, prefix)
    async with stand.topics({*bound.topics, *bound.written}), _hooks(stand) as url:
        value = await AvroCodec(load_schemas(resource("schemas"))).encode("results", _result())
        await asyncio.to_thread(_write, stand.servers, results, value, count)
        order = Order(
            variant="",
            url=url,
            servers=stand.servers,
            prefix=prefix,
            seconds=stand.lab.seconds,
            available=count,
            result=stand.lab.path("result"),
        )
        samples = await _take_turns(stand, order)
    bare, alone = ([1e6 / sample.cpu_us for sample in samples[name]] for name in ("raw", "client"))
    whole = [1e6 / sample.cpu_us for sample in samples["notify"]]
    return [
        at_least("P8-webhooks", "deliveries/s of a core, from results to deliveries on topics", 3_000, whole, "1/s"),
        at_least("P8-webhooks-client", "deliveries/s of a core, our sender alone", 3_000, alone, "1/s"),
        at_least("P8-webhooks-bare", "our sender alone against bare aiohttp posts", 0.6, ratios(alone, bare)),
    ]


async def _take_turns(stand: Stand, order: Order) -> Mapping[str, Sequence[Sample]]:
    chance, samples = random.Random(8), {name: list[Sample]() for name in VARIANTS}
    for number in range(1, stand.lab.rounds + 1):
        for name in chance.sample(VARIANTS, len(VARIANTS)):
            await stand.lab.run((sys.executable, "-m", PROGRAM, replace(order, variant=name).argument()))
            samples[name].append(meter.read(order.result))
            _tell(f"{number}/{stand.lab.rounds}", name, samples[name][-1:])
    for name, found in samples.items():
        _tell("median", name, found)
    return samples


@asynccontextmanager
async def _hooks(stand: Stand) -> AsyncIterator[str]:
    """Run the receiver in a process of its own, whose CPU time is none of ours."""
    port, output = stand.lab.path("port"), stand.lab.path("output")
    async with GuardedProcess(Command((sys.executable, "-m", HOOKS, str(port)), output=output)) as process:
        async with asyncio.timeout(READY_SECONDS):
            while not port.exists():
                if not process.running:
                    raise Failed(f"the receiver of webhooks ended: {output.read_text('utf-8')[-300:]}")
                await asyncio.sleep(0.02)
        yield f"http://{HOST}:{int(port.read_text('utf-8'))}/hooks/bench"


def _result() -> Result:
    return Result(
        answer="A parcel is kept for ten days. " * 40,
        model="gpt-4o-mini",
        finish_reason="stop",
        prompt_tokens=700,
        completion_tokens=300,
        cost_usd=0.0003,
        latency_ms=1200,
    )


def _write(servers: str, topic: str, value: bytes, count: int) -> None:
    """Write results of as many keys as there are results: nothing waits for the one before it."""
    producer, heads = open_writer(servers, 50), headers()
    for number in range(count):
        producer.produce(topic, value, key(number), number % PARTITIONS, headers=heads[number % len(heads)])
        if number % 1000 == 0:
            producer.poll(0)
    if left := producer.flush(60):
        raise Failed(f"{left} of {count} results were not written")


def _tell(which: str, name: str, samples: Sequence[Sample]) -> None:
    rate, cpu = median(one.rate for one in samples), median(one.cpu_us for one in samples)
    print(f"  {which:<6} {name:<18} {rate:>9,.0f} deliveries/s {cpu:>7.1f} us CPU a delivery", flush=True)

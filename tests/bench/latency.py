"""P3: how long a record needs through five stages when there is little to do."""

from __future__ import annotations

import asyncio
import random
import struct
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from statistics import quantiles
from uuid import uuid4

from confluent_kafka import Consumer, Message, TopicPartition

from pipeline.core import names
from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_most, ratios
from tests.bench.hops import HOPS, noun, plans
from tests.bench.input import headers, key, open_writer
from tests.bench.lab import Stand
from tests.bench.order import Order
from tests.bench.standing import standing

RATE = 50.0
PARTITIONS = 4
VALUE_BYTES = 1000
READY_SECONDS = 40.0
LAST_SECONDS = 20.0

_PROGRAMS = {"bare loops": "tests.bench.bare_hops", "our runtime": "tests.bench.hops"}
_WARM_UP = 25
_HEAD = struct.Struct(">qqd")


async def hops(stand: Stand) -> list[Figure]:
    """P3: five stages of our runtime against five bare poll loops, at 50 records a second."""
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in _PROGRAMS}
    chance, count = random.Random(5), 40 if stand.lab.quick else 400
    async with AsyncExitStack() as stack:
        orders = {name: await stack.enter_async_context(_chain(stand)) for name in _PROGRAMS}
        for number in range(1, stand.lab.rounds + 1):
            for name in chance.sample(list(_PROGRAMS), len(_PROGRAMS)):
                seconds = await _round(stand, name, orders[name], count)
                taken[name].append(seconds)
                _tell(f"{number}/{stand.lab.rounds}", name, seconds)
    what = "of five hops at 50 records/s, ours against five bare poll loops"
    figures = []
    for goal, share in ((1.15, 50), (1.5, 99)):
        bare, ours = ([_quantile(seconds, share) for seconds in taken[name]] for name in _PROGRAMS)
        figures.append(at_most(f"P3-p{share}", f"p{share} {what}", goal, ratios(ours, bare), "x"))
    return figures


@asynccontextmanager
async def _chain(stand: Stand) -> AsyncIterator[Order]:
    prefix = f"bench-{uuid4().hex[:8]}"
    topics = [topic for plan in plans(prefix) for topic in plan.topics] + [names.topic(prefix, noun(HOPS))]
    async with stand.topics(topics, PARTITIONS):
        yield replace(stand.order(), prefix=prefix, output_prefix=prefix)


async def _round(stand: Stand, name: str, order: Order, count: int) -> Sequence[float]:
    async with standing(stand.lab, _PROGRAMS[name], order) as chain:
        course = Course(order.servers, names.topic(order.prefix, noun(0)), names.topic(order.prefix, noun(HOPS)))
        seconds = await asyncio.to_thread(course.run, count)
        if len(seconds) < count:
            raise Failed(f"only {len(seconds)} of {count} records came through the five {name}")
        await chain.stop()
        return seconds


def _quantile(seconds: Sequence[float], share: int) -> float:
    return quantiles(seconds, n=100)[share - 1]


def _tell(which: str, name: str, seconds: Sequence[float]) -> None:
    middle, most = (_quantile(seconds, share) * 1000 for share in (50, 99))
    print(f"  {which:<6} {name:<18} p50 {middle:>7.1f} ms  p99 {most:>7.1f} ms", flush=True)


@dataclass(frozen=True, slots=True)
class Course:
    """Records sent into one topic at a steady rate, and timed as they come out of another."""

    servers: str
    source: str
    end: str

    def run(self, count: int) -> Sequence[float]:
        """Time `count` records, once the first came through; returns the seconds of each that did."""
        run, arrived, through = time.monotonic_ns(), dict[int, float](), threading.Event()
        over = threading.Event()
        reader = threading.Thread(target=self._read, args=(run, arrived, through, over))
        reader.start()
        try:
            self._write(run, count, through)
            end = time.monotonic() + LAST_SECONDS
            while sum(number >= 0 for number in arrived) < count + _WARM_UP and time.monotonic() < end:
                time.sleep(0.02)
        finally:
            over.set()
            reader.join()
        return [seconds for number, seconds in arrived.items() if number >= _WARM_UP]

    def _write(self, run: int, count: int, through: threading.Event) -> None:
        writer, chance, heads = open_writer(self.servers, 0), random.Random(6), headers()

        def send(which: int) -> None:
            value = _HEAD.pack(run, which, time.perf_counter()).ljust(VALUE_BYTES, b".")
            chosen = chance.randrange(1000)
            writer.produce(self.source, value, key(chosen), chosen % PARTITIONS, headers=heads[chosen])
            writer.poll(0)

        until = time.monotonic() + READY_SECONDS
        while not through.wait(0.2):
            if time.monotonic() > until:
                raise Failed(f"no record came from {self.source} to {self.end} within {READY_SECONDS:g} s")
            send(-1)
        for number in range(count + _WARM_UP):
            send(number)
            time.sleep(chance.uniform(0.5, 1.5) / RATE)
        writer.flush(10)

    def _read(self, run: int, arrived: dict[int, float], through: threading.Event, over: threading.Event) -> None:
        settings = {"bootstrap.servers": self.servers, "group.id": "bench", "enable.auto.commit": False}
        consumer = Consumer(settings)
        ends = [TopicPartition(self.end, number) for number in range(PARTITIONS)]
        consumer.assign([TopicPartition(one.topic, one.partition, _end(consumer, one)) for one in ends])
        while not over.is_set():
            message = consumer.poll(0.1)
            now = time.perf_counter()
            if message is not None and message.error() is None:
                of, number, sent = _HEAD.unpack_from(_value(message))
                if of == run:
                    arrived[number] = now - sent
                    through.set()
        consumer.close()


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    found: tuple[int, int] | None = consumer.get_watermark_offsets(partition, timeout=10)
    if found is None:
        raise Failed(f"the broker did not tell where {partition.topic} ends")
    return found[1]


def _value(message: Message) -> bytes:
    value = message.value()
    assert isinstance(value, bytes)
    return value

"""P12: more workers, a longer backlog, a wider window: what grows with them and what does not."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from tests.bench.figures import Figure, at_least, at_most, ratios
from tests.bench.input import fill, fill_plain
from tests.bench.lab import Stand
from tests.bench.order import Order, new_group
from tests.bench.standing import Standing, standing
from tests.bench.status import Status

MEMBER = "tests.bench.member"

WORKERS = 4
WORKER_WINDOW = 50
WAIT_SECONDS = 0.1
SETTLE_SECONDS = 2.0

BACKLOGS = (1_000, 1_000_000)
BACKLOG_VALUE_BYTES = 16
BACKLOG_WINDOW = 64
BACKLOG_SECONDS = 4.0

WINDOWS = (1_000, 20_000)
WINDOW_RATE = 2_500.0
NEVER_SECONDS = 55.0
"""Longer than anybody looks, and shorter than the stage's limit for a try."""

_KIB = 1024


async def workers(stand: Stand) -> list[Figure]:
    """P12-workers: four worker processes against one, with handlers that wait 100 ms."""
    rates: dict[int, list[float]] = {1: [], WORKERS: []}
    chance = random.Random(8)
    for number in range(1, stand.lab.rounds + 1):
        for count in chance.sample(list(rates), len(rates)):
            rates[count].append(await _rate(stand, count))
            print(f"  {number}/{stand.lab.rounds} {count} workers {rates[count][-1]:,.0f} records/s", flush=True)
    what = f"records/s of {WORKERS} processes against one, handlers that wait {WAIT_SECONDS * 1000:g} ms"
    return [at_least("P12-workers", what, 3.9, ratios(rates[WORKERS], rates[1]))]


async def _rate(stand: Stand, count: int) -> float:
    """Measure the rate of `count` workers together, when each has its partitions and all are at work."""
    prefix = f"{stand.prefix}-{time.monotonic_ns()}"
    group = new_group()
    order = replace(
        stand.order(), output_prefix=prefix, group=group, concurrency=WORKER_WINDOW, wait=WAIT_SECONDS, by_chance=True
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stand.topics([order.output]))
        orders = [replace(order, result=stand.lab.path("worker")) for _ in range(count)]
        members = [await stack.enter_async_context(standing(stand.lab, MEMBER, one)) for one in orders]
        for member in members:
            await member.until(lambda status: status.settled > 0 and 0 < status.partitions)
        await asyncio.sleep(SETTLE_SECONDS)
        before = [member.status for member in members]
        await asyncio.sleep(2 * stand.lab.seconds)
        after = [member.status for member in members]
    return sum(_rate_between(*pair) for pair in zip(before, after, strict=True))


def _rate_between(before: Status, after: Status) -> float:
    # A worker that has told nothing new in between has settled nothing.
    return (after.settled - before.settled) / (after.at - before.at) if after.at > before.at else 0.0


async def backlog(stand: Stand) -> list[Figure]:
    """P12-backlog: a worker's memory and its time to the first record, by how much waits for it."""
    sizes = (BACKLOGS[0], BACKLOGS[1] // 20) if stand.lab.quick else BACKLOGS
    memory: dict[int, list[float]] = {size: [] for size in sizes}
    first: dict[int, list[float]] = {size: [] for size in sizes}
    chance = random.Random(9)
    async with AsyncExitStack() as stack:
        orders = {size: await stack.enter_async_context(_backlog(stand, size)) for size in sizes}
        for number in range(1, stand.lab.rounds + 1):
            for size in chance.sample(sizes, len(sizes)):
                most, seconds = await _start(stand, orders[size])
                memory[size].append(most)
                first[size].append(seconds)
                told = f"{most / _KIB**2:.1f} MiB, first record after {seconds:.2f} s"
                print(f"  {number}/{stand.lab.rounds} {size:>9,} records {told}", flush=True)
    few, many = sizes
    later = [one - other for one, other in zip(first[many], first[few], strict=True)]
    against = f"with a backlog of {many:,} records against {few:,}"
    return [
        at_most("P12-memory", f"a worker's memory {against}", 1.2, ratios(memory[many], memory[few]), "x"),
        at_most("P12-first", f"seconds that the first record comes later {against}", 1, later, "s"),
    ]


@asynccontextmanager
async def _backlog(stand: Stand, size: int) -> AsyncIterator[Order]:
    async with stand.apart() as order:
        print(f"  writing {size:,} records", flush=True)
        await fill_plain(stand.servers, order.input, size, BACKLOG_VALUE_BYTES)
        yield replace(order, concurrency=BACKLOG_WINDOW, wait=WAIT_SECONDS)


async def _start(stand: Stand, order: Order) -> tuple[float, float]:
    """Start a worker and look at it for a while; returns the most memory it had and its time to the first record."""
    fresh = replace(order, group=new_group(), look=0.02, result=stand.lab.path("worker"))
    async with standing(stand.lab, MEMBER, fresh) as member:
        status = await member.until(lambda status: status.first > 0)
        end, most = time.monotonic() + (1.0 if stand.lab.quick else BACKLOG_SECONDS), 0
        while time.monotonic() < end:
            most = max(most, member.memory)
            await asyncio.sleep(0.05)
        return float(most), status.first - status.began


@dataclass(frozen=True, slots=True)
class Held:
    """A worker in whose window so many records are: the bytes of its memory."""

    open: int
    memory: int


async def window(stand: Stand) -> list[Figure]:
    """P12-window: CPU time a record and memory a record by how many are in flight, 1,000 or 20,000."""
    few, many = (100, 1_000) if stand.lab.quick else WINDOWS
    cpu: dict[int, list[float]] = {few: [], many: []}
    held: dict[int, list[Held]] = {few: [], many: []}
    chance = random.Random(10)
    async with stand.apart() as order:
        count = int(5 * many + 8 * WINDOW_RATE)
        print(f"  writing {count:,} records", flush=True)
        value_bytes = await fill(stand.servers, order.input, count, keys=count)
        for number in range(1, stand.lab.rounds + 1):
            for size in chance.sample([few, many], 2):
                held[size].append(await _held(stand, replace(order, concurrency=size)))
                cpu[size].append(await _cpu(stand, replace(order, concurrency=size)))
                told = f"{cpu[size][-1] * 1e6:.0f} us CPU a record, {held[size][-1].memory / _KIB**2:.1f} MiB"
                print(f"  {number}/{stand.lab.rounds} {size:>6,} in flight {told}", flush=True)
    beyond = [_each(*pair) - value_bytes for pair in zip(held[few], held[many], strict=True)]
    against = f"with {many:,} records in flight against {few:,}"
    memory = "bytes of memory that a record in flight takes beyond its payload"
    return [
        at_most("P12-cpu", f"CPU time a record {against}", 1.2, ratios(cpu[many], cpu[few]), "x"),
        at_most("P12-flight", memory, 2 * _KIB, beyond, "bytes"),
    ]


def _each(few: Held, many: Held) -> float:
    return (many.memory - few.memory) / (many.open - few.open)


async def _held(stand: Stand, order: Order) -> Held:
    """Let handlers begin that never end, until no more is taken; returns what is held then."""
    async with _fresh(stand, replace(order, wait=NEVER_SECONDS)) as member:
        full = await member.until(lambda status: status.running >= order.concurrency)
        while (later := await _after(member, 1.0)).open > full.open:
            full = later
        return Held(later.open, member.memory)


async def _cpu(stand: Stand, order: Order) -> float:
    """Measure the CPU time a record, in seconds, at a rate that does not depend on the window."""
    wait = order.concurrency / WINDOW_RATE
    async with _fresh(stand, replace(order, wait=wait, by_chance=True)) as member:
        # By then the records that came all at once have ended, each at its time.
        before = await member.until(lambda status: status.settled > 1.2 * order.concurrency)
        after = await _after(member, stand.lab.seconds)
        return (after.cpu - before.cpu) / max(1, after.settled - before.settled)


async def _after(member: Standing, seconds: float) -> Status:
    await asyncio.sleep(seconds)
    return member.status


@asynccontextmanager
async def _fresh(stand: Stand, order: Order) -> AsyncIterator[Standing]:
    prefix = f"{order.prefix}-{time.monotonic_ns()}"
    fresh = replace(order, output_prefix=prefix, result=stand.lab.path("worker"), group=new_group())
    async with stand.topics([fresh.output]), standing(stand.lab, MEMBER, fresh) as member:
        yield member

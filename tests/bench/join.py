"""P10: a second worker joins while records flow."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.bench import calls
from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_most, ratios
from tests.bench.input import KEYS, PARTITIONS, headers, key, open_writer
from tests.bench.joined import Joined
from tests.bench.lab import Stand
from tests.bench.order import Order, new_group
from tests.bench.standing import standing

RATE = 600.0
VALUE_BYTES = 200
BEFORE_SECONDS = 2.0
AFTER_SECONDS = 6.0
_QUICKER = 4
DRAIN_SECONDS = 60.0

SHORT_CALL = 0.1
LONG_CALL = 1.0
_PROGRAMS = {"bare consumer": "tests.bench.bare_member", "our runtime": "tests.bench.member"}


async def standstill(stand: Stand) -> list[Figure]:
    """P10: how long partitions stand still when a second worker joins, ours against bare consumers."""
    found: dict[str, list[Joined]] = {name: [] for name in _PROGRAMS}
    chance = random.Random(7)
    for number in range(1, stand.lab.rounds + 1):
        for name in chance.sample(list(_PROGRAMS), len(_PROGRAMS)):
            joined = await _join(stand, _PROGRAMS[name], {"concurrency": 64})
            found[name].append(joined)
            moved, kept = joined.moved_stop(), joined.kept_stop()
            which = f"{number}/{stand.lab.rounds}"
            print(
                f"  {which:<6} {name:<18} moved partitions stood still {moved:.2f} s, kept ones {kept:.2f} s",
                flush=True,
            )
    bare, ours = ([joined.moved_stop() for joined in found[name]] for name in _PROGRAMS)
    moved_what = "longest standstill of a partition that moves to a joining worker, ours against bare consumers"
    kept_what = "seconds of the longest standstill of a partition that stays (absolute)"
    return [
        at_most("P10-moved", moved_what, 1.2, ratios(ours, bare), "x"),
        at_most("P10-kept", kept_what, 0.2, [joined.kept_stop() for joined in found["our runtime"]], "s"),
    ]


async def calls_killed(stand: Stand) -> list[Figure]:
    """P10-calls: what becomes of calls, some of them long, when a second worker joins."""
    killed, repeated = [], []
    told = {"concurrency": 500, "wait": SHORT_CALL, "long": LONG_CALL}
    for number in range(1, stand.lab.rounds + 1):
        joined = await _join(stand, _PROGRAMS["our runtime"], told)
        killed.append(len(joined.killed()))
        repeated.append(len(joined.repeated()))
        counts = f"{killed[-1]} of {len(joined.old) + len(joined.new)} calls were killed, {repeated[-1]} repeated"
        print(f"  {number}/{stand.lab.rounds} {counts}", flush=True)
    killed_what = "calls that a joining worker kills though they could be settled in time"
    repeated_what = "calls that a joining worker repeats though they had ended"
    return [
        at_most("P10-calls", killed_what, 0, killed, "calls"),
        at_most("P10-repeated", repeated_what, 0, repeated, "calls"),
    ]


async def _join(stand: Stand, module: str, told: Mapping[str, int | float]) -> Joined:
    """Let a second worker join a first one in the flow, and both come to their end."""
    quicker = _QUICKER if stand.lab.quick else 1
    async with stand.apart() as apart:
        order = replace(apart, group=new_group(), watch=True, **told)  # type: ignore[arg-type]  # fields by name
        orders = [replace(order, result=stand.lab.path("member")) for _ in range(2)]
        flow = Flow(order)
        async with standing(stand.lab, module, orders[0]) as old, flow.running():
            await old.until(lambda status: status.first > 0)
            await asyncio.sleep(BEFORE_SECONDS / quicker)
            async with standing(stand.lab, module, orders[1]) as new:
                await new.until(lambda status: status.first > 0)
                at = new.status.began
                await asyncio.sleep(max(0.0, at + AFTER_SECONDS / quicker - time.monotonic()))
                until = time.monotonic()
                await flow.stop()
                await _drained(stand, order)
                await new.stop()
            await old.stop()
        joined = Joined(calls.read(orders[0].result), calls.read(orders[1].result), at, until)
    handled = {(call.partition, call.offset) for call in [*joined.old, *joined.new] if call.ended}
    if len(handled) != flow.sent:
        raise Failed(f"of {flow.sent} records {len(handled)} were handled while a worker joined")
    return joined


async def _drained(stand: Stand, order: Order) -> None:
    end = time.monotonic() + DRAIN_SECONDS
    while left := sum((await stand.admin.lag(order.group, [order.input])).values()):
        if time.monotonic() > end:
            raise Failed(f"{left} records were not settled {DRAIN_SECONDS:g} s after a worker had joined")
        await asyncio.sleep(0.2)


class Flow:
    """Records written to all partitions at a steady rate, from a thread of their own."""

    def __init__(self, order: Order) -> None:
        """Write to the order's input."""
        self.sent = 0
        self._order = order
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write during the block, or until `stop`."""
        self._thread.start()
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Write no more; all that was sent is acknowledged then."""
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        writer, heads, began = open_writer(self._order.servers, 0), headers(), time.monotonic()
        value = b"." * VALUE_BYTES
        while not self._over.wait(0.002):
            while self.sent < (time.monotonic() - began) * RATE:
                # One partition after the other, and all keys of each in turn.
                chosen = self.sent % (KEYS // PARTITIONS * PARTITIONS)
                head = heads[self.sent % len(heads)]
                writer.produce(self._order.input, value, key(chosen), chosen % PARTITIONS, headers=head)
                self.sent += 1
            writer.poll(0)
        writer.flush(10)

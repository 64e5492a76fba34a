"""P10: a second worker joins while records flow."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from tests.bench import calls
from tests.bench.calls import Call
from tests.bench.figures import Figure, at_most, ratios
from tests.bench.input import KEYS, PARTITIONS, headers, key, open_writer
from tests.bench.lab import Failed, Stand
from tests.bench.order import Order, new_group
from tests.bench.standing import standing

RATE = 600.0
VALUE_BYTES = 200
BEFORE_SECONDS = 2.0
AFTER_SECONDS = 6.0
DRAIN_SECONDS = 60.0

SHORT_CALL = 0.1
LONG_CALL = 1.0
SETTLE_SECONDS = 0.2
"""What a worker has, when partitions are taken from it, to settle what is done (design section 6.4)."""

_PROGRAMS = {"bare consumer": "tests.bench.bare_member", "our runtime": "tests.bench.member"}


@dataclass(frozen=True, slots=True)
class Joined:
    """What two workers have called, the second of which joined at `at`, and which was seen until `until`."""

    old: Sequence[Call]
    new: Sequence[Call]
    at: float
    until: float

    @property
    def moved(self) -> set[int]:
        """The partitions that went to the second worker."""
        return {call.partition for call in self.new}

    def stops(self) -> Mapping[int, float]:
        """Return the longest time without a call of each partition, in seconds, from the joining on."""
        times = defaultdict[int, list[float]](list)
        for call in sorted([*self.old, *self.new], key=lambda call: call.began):
            times[call.partition].append(call.began)
        return {number: self._longest(times[number]) for number in range(PARTITIONS)}

    def _longest(self, times: Sequence[float]) -> float:
        seen = [time for time in times if self.at <= time <= self.until]
        before = max((time for time in times if time < self.at), default=self.at)
        return max(later - earlier for earlier, later in zip([before, *seen], [*seen, self.until], strict=True))

    def killed(self) -> list[Call]:
        """Find calls of the first worker that were cut, or whose end came to nothing, though it could be settled.

        Those of a partition that it kept could all end. Of a partition that moved, those could that were due before it
        had to let go, which is after it last began a call there, and `SETTLE_SECONDS` more.
        """
        moved, let_go = self.moved, self._let_go()
        kept = [call for call in self.old if call.partition not in moved and not call.ended]
        return kept + [call for call in self._repeated() if 0 < call.due - let_go[call.partition] <= SETTLE_SECONDS]

    def repeated(self) -> list[Call]:
        """Find calls of the first worker that ended before it let go of their partition, and that the second repeats.

        Their ends were settled, but beyond a record that was not: only a map in the commit tells of them.
        """
        let_go = self._let_go()
        return [call for call in self._repeated() if call.due <= let_go[call.partition]]

    def _repeated(self) -> list[Call]:
        again = {(call.partition, call.offset) for call in self.new}
        return [call for call in self.old if (call.partition, call.offset) in again]

    def _let_go(self) -> Mapping[int, float]:
        return {number: max((c.began for c in self.old if c.partition == number), default=0.0) for number in self.moved}


async def standstill(stand: Stand) -> list[Figure]:
    """P10: how long partitions stand still when a second worker joins, ours against bare consumers."""
    found: dict[str, list[Joined]] = {name: [] for name in _PROGRAMS}
    chance = random.Random(7)
    for number in range(1, stand.lab.rounds + 1):
        for name in chance.sample(list(_PROGRAMS), len(_PROGRAMS)):
            joined = await _join(stand, _PROGRAMS[name], {"concurrency": 64})
            found[name].append(joined)
            moved, kept = _moved(joined), _kept(joined)
            which = f"{number}/{stand.lab.rounds}"
            print(
                f"  {which:<6} {name:<18} moved partitions stood still {moved:.2f} s, kept ones {kept:.2f} s",
                flush=True,
            )
    bare, ours = ([_moved(joined) for joined in found[name]] for name in _PROGRAMS)
    moved_what = "longest standstill of a partition that moves to a joining worker, ours against bare consumers"
    kept_what = "seconds of the longest standstill of a partition that stays (absolute)"
    return [
        at_most("P10-moved", moved_what, 1.2, ratios(ours, bare), "x"),
        at_most("P10-kept", kept_what, 0.2, [_kept(joined) for joined in found["our runtime"]], "s"),
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


def _moved(joined: Joined) -> float:
    stops = joined.stops()
    return max(stops[number] for number in joined.moved)


def _kept(joined: Joined) -> float:
    stops = joined.stops()
    return max((stops[number] for number in stops.keys() - joined.moved), default=0.0)


async def _join(stand: Stand, module: str, told: Mapping[str, int | float]) -> Joined:
    """Let a second worker join a first one in the flow, and both come to their end."""
    async with stand.apart() as apart:
        order = replace(apart, group=new_group(), watch=True, **told)  # type: ignore[arg-type]  # fields by name
        orders = [replace(order, result=stand.lab.path("member")) for _ in range(2)]
        flow = Flow(order)
        async with standing(stand.lab, module, orders[0]) as old, flow.running():
            await old.until(lambda status: status.first > 0)
            await asyncio.sleep(BEFORE_SECONDS)
            async with standing(stand.lab, module, orders[1]) as new:
                await new.until(lambda status: status.first > 0)
                at = new.status.began
                await asyncio.sleep(max(0.0, at + AFTER_SECONDS - time.monotonic()))
                until = time.monotonic()
                await flow.stop()
                await _drained(stand, order)
                await new.stop()
            await old.stop()
        joined = Joined(*(calls.read(one.result) for one in orders), at, until)
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

"""P8: what a stage costs that has nothing to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from tests.bench.figures import Figure, at_most
from tests.bench.lab import Stand
from tests.bench.standing import standing

MEMBER = "tests.bench.member"
SETTLE_SECONDS = 2.0
LOOK_SECONDS = 5.0


async def share(stand: Stand) -> list[Figure]:
    """P8-idle: the share of a core that a stage without any record uses, each round of a stage just started."""
    shares = []
    for number in range(1, stand.lab.rounds + 1):
        async with (
            stand.apart() as order,
            standing(stand.lab, MEMBER, replace(order, look=LOOK_SECONDS)) as member,
        ):
            await member.until(lambda status: status.began > 0)
            await asyncio.sleep(SETTLE_SECONDS)
            before, began = member.cpu, time.monotonic()
            await asyncio.sleep(1.0 if stand.lab.quick else 2 * LOOK_SECONDS)
            shares.append((member.cpu - before) / (time.monotonic() - began))
        print(f"  {number}/{stand.lab.rounds} {shares[-1] * 100:.2f} % of a core", flush=True)
    return [at_most("P8-idle", "share of a core that an idle stage uses", 0.01, shares, "share")]

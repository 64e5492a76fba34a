"""Replays: whether dead letters go back at the rate that was asked for."""

from __future__ import annotations

import time

from pipeline.core.replay import Rules
from pipeline.ops.replay_plan import Wanted
from pipeline.ops.replay_work import Person
from pipeline.replaying import open_replays
from tests.bench.figures import Figure, at_most
from tests.bench.lab import Stand
from tests.ops.replay_dead import buried

RATE = 2_000.0
MOST_ROUNDS = 2


async def at_the_rate(stand: Stand) -> list[Figure]:
    """D2-replay: 100,000 dead letters, replayed at 2,000 a second."""
    count = 5_000 if stand.lab.quick else 100_000
    wrong = []
    async with buried(stand.servers, count) as configured, open_replays(configured, _say) as replays:
        for number in range(min(stand.lab.rounds, MOST_ROUNDS)):
            rules, wanted = Rules(f"bench-{number}", again=True, most=100, guard=0), Wanted()
            began, cpu = time.monotonic(), time.process_time()
            plan = await replays.plan(rules, wanted, _quiet)
            planned, used = time.monotonic() - began, time.process_time() - cpu
            report = await replays.execute(plan, wanted, Person("bench", ""), RATE)
            assert report.copies == count, report
            rate, cpu = report.copies / report.seconds, time.process_time() - cpu - used
            print(
                f"  {number + 1}: planned in {planned:.1f} s ({used / count * 1e6:.0f} us CPU a letter),"
                f" {rate:,.0f} letters a second ({cpu / count * 1e6:.0f} us)",
                flush=True,
            )
            wrong.append(abs(rate / RATE - 1))
    what = f"share by which {count:,} dead letters miss the {RATE:,.0f} a second asked for"
    return [at_most("D2-replay", what, 0.05, wrong, "share")]


def _say(_: str) -> None:
    """Tell nobody."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""

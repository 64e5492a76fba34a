"""`python -m tests.bench [ids...] [--rounds N] [--quick]`: measures the goals, or those named, on a real broker.

Prints a table and writes `.bench/results.json` in the working folder. `P4` means all figures whose id begins with it.
KAFKA_BOOTSTRAP_SERVERS names a broker to use; else an embedded one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import uvloop

from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.telemetry import logs
from tests.bench import (
    against,
    concurrency,
    freshness,
    growth,
    idle,
    indexing,
    join,
    latency,
    letters,
    modes,
    replaying,
    retrieval,
    startup,
    throughput,
    webhooks,
)
from tests.bench.figures import Figure, table
from tests.bench.lab import Lab, Stand, open_stand
from tests.bench.run import Run

RESULTS = Path(".bench") / "results.json"
ROUNDS = 5

ALONE: Mapping[str, Callable[[Lab], Awaitable[list[Figure]]]] = {"P11": startup.demo, "R5": retrieval.quality}
"""Benchmarks that want the machine for themselves, or no broker."""

ON_STAND: Mapping[str, Callable[[Stand], Awaitable[list[Figure]]]] = {
    "P1": throughput.bytes_moved,
    "P1-avro": throughput.events_moved,
    "P3": latency.hops,
    "P4": concurrency.waits,
    "P4-slow": concurrency.slow,
    "P6": modes.exactly_once,
    "P8-idle": idle.share,
    "P8-webhooks": webhooks.delivered,
    "P9-searchable": freshness.searchable,
    "P9-indexing": indexing.taken_in,
    "P10": join.standstill,
    "P10-calls": join.calls_killed,
    "D1-list": letters.listed,
    "P12-workers": growth.workers,
    "P12-backlog": growth.backlog,
    "P12-window": growth.window,
    "D2-replay": replaying.at_the_rate,
    "P2": against.compared,
}
"""Benchmarks that read and write records. That which needs the network comes last."""


async def measure(lab: Lab, wanted: Sequence[str]) -> Run:
    """Run the benchmarks called `wanted`, those that want to be alone first."""
    run = Run(RESULTS)
    for name, alone in ALONE.items():
        if name in wanted:
            await run.take(name, alone.__doc__ or name, lambda alone=alone: alone(lab))  # type: ignore[misc]  # bound now
    chosen = {name: on_stand for name, on_stand in ON_STAND.items() if name in wanted}
    if chosen:
        try:
            async with open_stand(lab, os.environ.get("KAFKA_BOOTSTRAP_SERVERS")) as stand:
                for name, on_stand in chosen.items():
                    await run.take(name, on_stand.__doc__ or name, lambda one=on_stand: one(stand))  # type: ignore[misc]  # bound now
        except EmbeddedKafkaError as error:
            run.fail(f"{', '.join(chosen)}: not measured, for there is no broker: {error}")
    return run


def chosen_of(ids: Sequence[str]) -> list[str]:
    """Find the benchmarks that measure `ids`, all of them where none is named. Raises ValueError for an unknown id."""
    known = [*ALONE, *ON_STAND]
    found = [name for name in known if not ids or any(name == one or name.startswith(f"{one}-") for one in ids)]
    for one in ids:
        if not any(name == one or name.startswith(f"{one}-") for name in known):
            raise ValueError(f"no benchmark is called {one}: there are {', '.join(known)}")
    return found


def main() -> int:
    """Measure, print and write; the exit code says whether everything ran, not whether the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the performance goals.")
    parser.add_argument("ids", nargs="*", help="goals to measure, such as P1 or P1-avro (default: all)")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds (default {ROUNDS}; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="only show that everything works: figures mean nothing")
    told = parser.parse_args()
    try:
        wanted = chosen_of(told.ids)
    except ValueError as error:
        parser.error(str(error))
    logs.configure("console", "WARNING")
    run = _run(told.rounds or (1 if told.quick else ROUNDS), wanted, quick=told.quick)
    print(table(run.figures))
    return int(run.failures > 0)


def _run(rounds: int, wanted: Sequence[str], *, quick: bool) -> Run:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        lab = Lab(Path(folder), rounds, quick)
        run = runner.run(measure(lab, wanted))
        run.failures += len(lab.missing)
        return run


if __name__ == "__main__":
    sys.exit(main())

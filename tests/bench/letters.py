"""D1: listing dead letters, a million of them and a twentieth of that: the time, and whether memory grows."""

from __future__ import annotations

import json
import os
import sys
from uuid import uuid4

from pipeline.core import names
from tests.bench.figures import Figure, at_most, ratios
from tests.bench.input import PARTITIONS, fill_dead
from tests.bench.lab import Stand

PROGRAM = "tests.bench.listing"
LETTERS = 1_000_000
FEWER = 20
MOST_ROUNDS = 3
LIMIT_SECONDS = 400.0


async def listed(stand: Stand) -> list[Figure]:
    """D1-list: `pipeline dlq list` of 1,000,000 dead letters, start of the program included."""
    many = LETTERS // FEWER if stand.lab.quick else LETTERS
    told: dict[int, list[dict[str, float]]] = {many: [], many // FEWER: []}
    for count, samples in told.items():
        prefix = f"bench-{uuid4().hex[:8]}"
        topic = names.dead_letter_topic(prefix, "infer")
        async with stand.topics([topic], PARTITIONS):
            await fill_dead(stand.servers, topic, count)
            for number in range(1, min(stand.lab.rounds, MOST_ROUNDS) + 1):
                samples.append(await _list(stand, prefix, count))
                _tell(number, count, samples[-1])
    seconds = [one["seconds"] for one in told[many]]
    memory = [[one["mebibytes"] for one in samples] for samples in told.values()]
    return [
        at_most("D1-list", f"s to list {many:,} dead letters", 60, seconds, "s"),
        at_most(
            "D1-memory",
            f"memory of a process for {many:,} dead letters against {many // FEWER:,}",
            1.2,
            ratios(*memory),
            "x",
        ),
    ]


async def _list(stand: Stand, prefix: str, count: int) -> dict[str, float]:
    result = stand.lab.path("listing")
    told = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": stand.servers, "PIPELINE_TOPIC_PREFIX": prefix}
    arguments = (sys.executable, "-m", PROGRAM, str(result), str(count))
    seconds = await stand.lab.run(arguments, told, limit=LIMIT_SECONDS)
    found: dict[str, float] = json.loads(result.read_text("utf-8"))
    return {**found, "seconds": seconds}


def _tell(number: int, count: int, told: dict[str, float]) -> None:
    cpu, size = told["cpu"] / count * 1e6, told["mebibytes"]
    print(f"  {number} {count:,} letters: {told['seconds']:.1f} s, {cpu:.1f} us CPU each, {size:.0f} MB", flush=True)

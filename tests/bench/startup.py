"""P11: how long a person waits for the demo, and for its broker. Absolute seconds, unlike everything else here."""

from __future__ import annotations

import sys
import time

from pipeline.devkit.kafka import embedded_kafka
from tests.bench.figures import Figure, at_most
from tests.bench.lab import Lab
from tests.kafka_fixture import kafka_config
from tests.system.command import plain_environment

DEMO = (sys.executable, "-m", "pipeline", "demo")


async def demo(lab: Lab) -> list[Figure]:
    """P11: `pipeline demo` and its broker, everything warm, which a round that is not counted sees to."""
    demos, brokers = [], []
    for number in range(int(lab.quick), lab.rounds + 1):
        folder = lab.folder / f"demo-{number}"
        folder.mkdir()
        broker, whole = await _broker(lab, number), await lab.run(DEMO, plain_environment(), folder)
        print(f"  {number}/{lab.rounds} demo {whole:.1f} s, broker {broker:.2f} s", flush=True)
        if number:
            brokers.append(broker)
            demos.append(whole)
    return [
        at_most("P11", "seconds of `pipeline demo`, warm, the whole process (absolute)", 20, demos, "s"),
        at_most("P11-broker", "seconds until an embedded broker answers, warm (absolute)", 2, brokers, "s"),
    ]


async def _broker(lab: Lab, number: int) -> float:
    began = time.perf_counter()
    async with embedded_kafka(kafka_config(lab.folder / f"kafka-{number}")):
        return time.perf_counter() - began

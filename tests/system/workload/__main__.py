"""`python -m tests.system.workload [--minutes N] [--seed S] [variants...]`: run after run until the time is over.

Each run has a seed of its own, S, S + 1, ..., which decides the notes and the nemesis; odd ones use classic groups. A
run that finds something ends the program with its report. Logs are kept in `.cache/workload`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path

import uvloop

from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.telemetry import logs
from tests.kafka_fixture import kafka_config
from tests.system.workload.run import Setting, Verdict, run
from tests.system.workload.variants import VARIANTS, chosen

FOLDER = Path(".cache") / "workload"
MINUTES, SECONDS = 10.0, 120.0


def main() -> int:
    """Make run after run; the exit code is 1 where one finds something."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.workload", description="Look for broken promises.")
    parser.add_argument("variants", nargs="*", help=f"stages to run (default: all of {', '.join(VARIANTS)})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"no new run after these (default {MINUTES:g})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"trouble in each run (default {SECONDS:g})")
    parser.add_argument("--seed", type=int, help="the first run's seed (default: of the clock)")
    told = parser.parse_args()
    try:
        chosen(told.variants)
    except ValueError as error:
        parser.error(str(error))
    logs.configure("console", "WARNING")
    seed = int(time.time()) if told.seed is None else told.seed
    end = time.monotonic() + 60 * told.minutes
    while time.monotonic() < end:
        try:
            verdict = _run(seed, told.seconds, told.variants)
        except EmbeddedKafkaError as error:
            print(error, file=sys.stderr)
            return 1
        print(verdict.summary, flush=True)
        if verdict.found:
            print(verdict.report)
            print(f"\nagain: python -m tests.system.workload --seed {seed} --seconds {told.seconds:g} --minutes 0.1")
            return 1
        seed += 1
    return 0


def _run(seed: int, seconds: float, wanted: list[str]) -> Verdict:
    folder = (FOLDER / f"seed-{seed}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kafka = kafka_config(folder / "kafka")
    setting = Setting(
        seed, seconds, folder, kafka, chosen(wanted), protocol="classic" if seed % 2 else "consumer", patience=120.0
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        verdict = runner.run(run(setting))
    if not verdict.found:
        shutil.rmtree(folder, ignore_errors=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())

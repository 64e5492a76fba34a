"""`pipeline run`: stages in this process, until SIGTERM or Ctrl-C; a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

from pipeline import wiring
from pipeline.cli.session import FAILED, say
from pipeline.runtime.worker import Worker
from pipeline.settings import Configured
from pipeline.telemetry import logs


async def run_stages(configured: Configured, stages: Sequence[str], accept_dead: int = 0) -> int:
    """Run `stages` until told to stop; returns the exit code."""
    async with wiring.open_worker(configured, stages, say, accept_dead) as opened:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _asked, opened.worker)
        logs.get().info("worker: probes", action="worker.probes", url=opened.probes, stages=list(stages))
        return await opened.worker.run()


def _asked(worker: Worker) -> None:
    if worker.stopping:
        # Asked twice: whoever asks does not want to wait. What is not settled was not committed.
        os._exit(FAILED)
    worker.stop()

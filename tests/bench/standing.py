"""A program that runs until it is told to stop: started, looked at from outside, and stopped."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from pipeline.devkit.guard import Command, GuardedProcess
from tests.bench import status
from tests.bench.failure import failed
from tests.bench.lab import Lab
from tests.bench.order import Order
from tests.bench.status import Status

READY_SECONDS = 60.0
GRACE_SECONDS = 15.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """One such program."""

    process: GuardedProcess
    order: Order

    @property
    def status(self) -> Status:
        """How it stands, as it says."""
        return status.read(self.order.status)

    @property
    def memory(self) -> int:
        """The bytes of memory that it holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def cpu(self) -> float:
        """The seconds of CPU time that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    async def until(self, enough: Callable[[Status], bool], limit: float = READY_SECONDS) -> Status:
        """Wait until its status is as asked. Raises Failed where it ends before, or where `limit` seconds pass."""
        end = time.monotonic() + limit
        while not enough(found := self.status):
            if not self.process.running or time.monotonic() > end:
                raise self._failed(f"did not come so far within {limit:g} s: {found}")
            await asyncio.sleep(_LOOK_SECONDS)
        return found

    async def stop(self) -> None:
        """Tell it to stop and wait for its end. Raises Failed where that is not a good one."""
        code = await self.process.terminate(GRACE_SECONDS)
        if code != 0:
            raise self._failed(f"ended with {code}")

    def _failed(self, what: str) -> Exception:
        command = self.process.command
        assert command.output is not None
        return failed(command.arguments[:-1], what, command.output)


@asynccontextmanager
async def standing(lab: Lab, module: str, order: Order) -> AsyncIterator[Standing]:
    """Start a module of this project, and stop it at the end of the block; where all went well, it must end well."""
    output = lab.path("output")
    command = Command((sys.executable, "-m", module, order.argument()), output=output, grace=GRACE_SECONDS)
    async with GuardedProcess(command) as process:
        one = Standing(process, order)
        yield one
        if process.running:
            await one.stop()

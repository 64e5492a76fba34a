"""Keeps a set of processes running: one that dies is started again, and all end with the block.

Who runs is written to a JSON file (`{name: pid}`), so that a person or a test can find a process by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

MAX_STARTS = 20
"""How often one process is started before its deaths count as a fault of its own."""
PAUSE_SECONDS = 0.2


class Process(Protocol):
    """What is supervised; `devkit.guard.GuardedProcess` is one."""

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        ...

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        ...

    async def restart(self) -> None:
        """Start it again."""
        ...

    async def terminate(self, grace: float | None = None) -> int:
        """End it, with SIGTERM first."""
        ...


class Unsteady(RuntimeError):
    """A process keeps dying; the message names it and its last exit code."""


class Supervisor:
    """Watches running processes. `failed` is set where one of them cannot be kept alive."""

    def __init__(self, processes: Mapping[str, Process], roster: Path, say: Callable[[str], None]) -> None:
        """Take processes that were started already."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._processes = processes
        self._roster = roster
        self._say = say

    def write_roster(self) -> None:
        """Write who runs now."""
        draft = self._roster.with_suffix(".new")
        draft.write_text(json.dumps({name: process.pid for name, process in self._processes.items()}), encoding="utf-8")
        draft.replace(self._roster)

    def remove_roster(self) -> None:
        """Say that nobody runs any more."""
        self._roster.unlink(missing_ok=True)

    async def keep(self, name: str, ready: Callable[[], Awaitable[None]]) -> None:
        """Start the process again whenever it ends, until cancelled."""
        process = self._processes[name]
        code = 0
        for _ in range(MAX_STARTS):
            code = await process.wait()
            self._say(f"{name} ended with code {code}: starting it again")
            await asyncio.sleep(PAUSE_SECONDS)
            await process.restart()
            self.write_roster()
            await ready()
        if not self.failed.done():
            self.failed.set_exception(Unsteady(f"{name} keeps ending, last with code {code}; its log says why"))


@asynccontextmanager
async def supervised(
    processes: Mapping[str, Process],
    ready: Mapping[str, Callable[[], Awaitable[None]]],
    roster: Path,
    say: Callable[[str], None],
) -> AsyncIterator[Supervisor]:
    """Keep started `processes` running while the block runs, then stop watching; their owner ends them."""
    supervisor = Supervisor(processes, roster, say)
    supervisor.write_roster()
    tasks = [asyncio.create_task(supervisor.keep(name, ready[name])) for name in processes]
    try:
        yield supervisor
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        supervisor.remove_roster()
        if supervisor.failed.done():
            supervisor.failed.exception()

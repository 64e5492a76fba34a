"""The nemesis: carries out a schedule on real processes and keeps what it did, with the times."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import Broker
from tests.system.workload.checker import Violation
from tests.system.workload.report import Deed
from tests.system.workload.schedule import Step
from tests.system.workload.worker import Order

LEAVE_SECONDS = 40.0
"""How long a worker that was told to leave may take: its drain, and what closing waits for without a broker."""
_TAIL_CHARACTERS = 1500
# Told to leave before it could listen, a process ends by the signal itself.
_ENDINGS = {"kill": (-signal.SIGKILL,), "leave": (0, -signal.SIGTERM), "": ()}


@dataclass
class Member:
    """One worker's process. `ending` is how the nemesis ended it, empty while it should run."""

    process: GuardedProcess
    log: Path
    stopped: bool = False
    ending: str = ""


class Nemesis:
    """Owns the workers, and hurts them and the broker."""

    def __init__(self, broker: Broker, order: Order, folder: Path) -> None:
        """Begin without workers; their logs go into `folder`."""
        self.deeds: list[Deed] = []
        self._broker = broker
        self._command = (sys.executable, "-m", "tests.system.workload.worker", order.argument())
        self._folder = folder
        self._members: dict[str, Member] = {}
        self._background: list[asyncio.Task[None]] = []
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    async def start(self, name: str) -> None:
        """Start a worker."""
        log = self._folder / f"{name}.log"
        member = Member(GuardedProcess(Command(self._command, output=log, grace=LEAVE_SECONDS)), log)
        await member.process.start()
        self._members[name] = member
        self._note(f"start {name} (pid {member.process.pid})")

    async def follow(self, steps: list[Step], seconds: float) -> None:
        """Carry out those steps that are due within `seconds`, at their times."""
        begin = self.now
        for step in steps:
            if step.at < seconds:
                await asyncio.sleep(max(0.0, begin + step.at - self.now))
                await self._do(step)
        await asyncio.sleep(max(0.0, begin + seconds - self.now))

    async def heal(self, least: int) -> None:
        """Bring the broker back, let every worker go on, and start some until there are `least`."""
        self._note("heal")
        await asyncio.gather(*self._background)
        self._background.clear()
        for name, member in self._running():
            if member.stopped:
                self._signal(name, "continue")
        for number in range(least - len(list(self._running()))):
            await self.start(f"healer{number + 1}")

    async def end(self) -> None:
        """Tell every worker to leave, and wait until all have ended."""
        for name, _ in self._running():
            self._leave(name)
        await asyncio.gather(*self._background)
        self._background.clear()

    async def kill(self) -> None:
        """End whatever still runs."""
        for task in self._background:
            task.cancel()
        for member in self._members.values():
            if member.process.running:
                await member.process.kill()

    def complaints(self) -> Iterator[Violation]:
        """Say which workers ended otherwise than they were made to."""
        for name, member in self._members.items():
            code = member.process.returncode
            if code not in _ENDINGS[member.ending]:
                told = f"after '{member.ending}'" if member.ending else "though nobody told it to end"
                tail = member.log.read_text("utf-8", "replace")[-_TAIL_CHARACTERS:]
                yield Violation("worker", f"{name} ended with {code} {told}; its log ends with:\n{tail}")

    # -------------------------------------------------------------- the actions

    async def _do(self, step: Step) -> None:
        match step.action:
            case "start":
                await self.start(step.worker)
            case "kill":
                await self._kill(step.worker)
            case "leave":
                self._leave(step.worker)
            case "stop" | "continue":
                self._signal(step.worker, step.action)
            case "kill broker":
                self._meanwhile(self._kill_broker())
            case "stop broker":
                self._meanwhile(self._stop_broker(step.seconds))

    async def _kill(self, name: str) -> None:
        member = self._members[name]
        if member.process.running:
            member.ending = "kill"
            self._note(f"kill -9 {name}")
            await member.process.kill()

    def _leave(self, name: str) -> None:
        self._members[name].ending = "leave"
        self._note(f"SIGTERM {name}")
        self._meanwhile(self._gone(name))

    async def _gone(self, name: str) -> None:
        code = await self._members[name].process.terminate()
        self._note(f"{name} has left, exit code {code}")

    def _signal(self, name: str, action: str) -> None:
        member = self._members[name]
        if member.process.running:
            member.stopped = action == "stop"
            self._note(f"{'SIGSTOP' if member.stopped else 'SIGCONT'} {name}")
            os.kill(member.process.pid, signal.SIGSTOP if member.stopped else signal.SIGCONT)

    async def _kill_broker(self) -> None:
        if self._broker.process is not None:
            self._note("kill -9 the broker")
            await self._broker.process.kill()
            await self._broker.restart()
            self._note("the broker is back")

    async def _stop_broker(self, seconds: float) -> None:
        if self._broker.pid is not None:
            self._note("SIGSTOP the broker")
            os.kill(self._broker.pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(self._broker.pid, signal.SIGCONT)
            self._note("SIGCONT the broker")

    # -------------------------------------------------------------- the rest

    def _running(self) -> list[tuple[str, Member]]:
        return [(name, one) for name, one in self._members.items() if one.process.running and not one.ending]

    def _meanwhile(self, work: Coroutine[None, None, None]) -> None:
        self._background.append(asyncio.create_task(work))

    def _note(self, what: str) -> None:
        self.deeds.append(Deed(self.now, what))

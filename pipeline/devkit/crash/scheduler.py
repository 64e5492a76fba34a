"""An event loop on which several processes live, and where any of them can be stopped between two of its steps.

Whose a callback is stands in its context, which asyncio hands on to every task, timer and future that comes of it. A
stopped process keeps its callbacks, and none of them runs: to the world it is as a process under SIGSTOP, and one that
is never continued is as after `kill -9`. Within a process callbacks keep asyncio's order, first in, first out; which
process is next is drawn from the seed, since nothing orders the steps of two processes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from random import Random
from typing import Any

from pipeline.devkit.clock import VirtualLoop


class Process:
    """Callbacks that live and die together. `tasks` are all that were begun in it; `name` is for people."""

    def __init__(self, name: str) -> None:
        """Begin running, with nothing to do."""
        self.name = name
        self.context = Context()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.running = True
        self.steps = 0
        self._trap: tuple[int, Callable[[], None]] | None = None
        self.queue: deque[asyncio.Handle] = deque()
        self.context.run(_OWNER.set, self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Run a callback as one of this process."""
        asyncio.get_running_loop().call_soon(callback, *args, context=self.context)

    def later(self, seconds: float, callback: Callable[..., object], *args: object) -> None:
        """Run a callback as one of this process, after a time that passes also while it is stopped."""
        asyncio.get_running_loop().call_later(seconds, callback, *args, context=self.context)

    def trap(self, steps: int, action: Callable[[], None]) -> None:
        """Call `action` after so many more steps of this process: at any await, not only where a timer ends."""
        self._trap = (self.steps + steps, action)

    def step(self) -> None:
        """Count a step that is about to be made; the trap may stop the process before it."""
        self.steps += 1
        if self._trap is not None and self.steps > self._trap[0]:
            action = self._trap[1]
            self._trap = None
            action()


_OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)
OUTSIDE = Context()
"""The context of what belongs to no process: the broker, the network, time itself."""


def owner() -> Process | None:
    """Return the process whose step this is; None outside of all."""
    return _OWNER.get()


def outside(seconds: float, callback: Callable[..., object], *args: object) -> None:
    """Run a callback after a time, whatever becomes of the process that asks for it."""
    asyncio.get_running_loop().call_later(seconds, callback, *args, context=OUTSIDE)


class CrashLoop(VirtualLoop):
    """Virtual time for several processes; `chance` says which of them makes the next step."""

    def __init__(self, chance: Random) -> None:
        """Start at time 0."""
        super().__init__()
        self._ready = _Ready(self, chance)
        self.set_task_factory(_begin)


class _Ready:
    """What a loop has ready to run, by process: stands in for the one queue of asyncio's own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random) -> None:
        self._chance = chance.random
        self._outside: deque[asyncio.Handle] = deque()
        self._processes: list[Process] = []
        self._known: set[Process] = set()
        self._nothing = asyncio.Handle(_nothing, (), loop)
        self._nothing.cancel()

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_OWNER)  # type: ignore[attr-defined]  # every handle has one (PEP 567)
        if process is None:
            self._outside.append(handle)
            return
        if process not in self._known:
            self._known.add(process)
            self._processes.append(process)
        process.queue.append(handle)

    def popleft(self) -> asyncio.Handle:
        busy = [process for process in self._processes if process.running and process.queue]
        place = int(self._chance() * (len(busy) + bool(self._outside)))
        if place == len(busy):
            return self._outside.popleft() if self._outside else self._nothing
        process = busy[place]
        process.step()
        # Its trap may have stopped it, and then its next step is not made.
        return process.queue.popleft() if process.running else self._nothing

    def clear(self) -> None:
        self._outside.clear()
        for process in self._processes:
            process.queue.clear()

    def __len__(self) -> int:
        count = len(self._outside)
        for process in self._processes:
            if process.running:
                count += len(process.queue)
        return count


def _nothing() -> None:
    """Do nothing."""


def _begin(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    process = context.get(_OWNER) if context is not None else _OWNER.get()
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task

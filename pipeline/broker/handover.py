"""One long-lived thread that works for an event loop, one job at a time."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")


class Handover(Generic[T]):
    """Hands jobs to a thread and takes their results back on the loop.

    A job that was handed over comes back, whatever becomes of who waits for it: `back` is called on the loop once for
    each job, in order, with its result or its exception. What the thread posts to the loop meanwhile comes before it.
    """

    def __init__(self, name: str, back: Callable[[T | None, Exception | None], None]) -> None:
        """Start the thread. Call it on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._back = back
        self._jobs: queue.SimpleQueue[Callable[[], T | None] | None] = queue.SimpleQueue()
        self._away = False
        self._waiting: set[asyncio.Future[None]] = set()
        # A daemon: a client that hangs on a dead network must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def home(self) -> bool:
        """Whether the loop, not the thread, has in hand what the jobs work with."""
        return not self._away

    @property
    def elsewhere(self) -> bool:
        """Whether the caller is the thread, and not on the loop."""
        return threading.get_ident() == self._thread.ident

    def give(self, job: Callable[[], T | None]) -> None:
        """Hand a job over. Only when `home`."""
        self._away = True
        self._jobs.put(job)

    async def returned(self) -> None:
        """Wait until the thread has nothing in hand. To be cancelled here changes nothing for the job."""
        while self._away:
            waiter = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def tell(self, call: Callable[[], object]) -> None:
        """Run `call` on the loop: at once where the caller is there, else as soon as the loop gets to it."""
        if self.elsewhere:
            self._post(call)
        else:
            call()

    def ask(self, call: Callable[[], A], seconds: float) -> A | None:
        """Run `call` on the loop and return its answer; None where the loop does not get to it within `seconds`.

        Then it is never run.
        """
        if not self.elsewhere:
            return call()
        answer: Future[A] = Future()
        self._post(partial(_answer, answer, call))
        try:
            return answer.result(seconds)
        except TimeoutError:
            # Where it has just begun it will end, for what is called here never waits.
            return None if answer.cancel() else answer.result()

    def stop(self) -> None:
        """Let the thread end when its job is done. No job may follow."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                settle = partial(self._settle, job(), None)
            except Exception as error:
                settle = partial(self._settle, None, error)
            self._post(settle)
            del job, settle  # a record must not live here until the next one comes

    def _post(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(call)

    def _settle(self, result: T | None, failure: Exception | None) -> None:
        self._away = False
        self._back(result, failure)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


def _answer(answer: Future[A], call: Callable[[], A]) -> None:
    if answer.set_running_or_notify_cancel():
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

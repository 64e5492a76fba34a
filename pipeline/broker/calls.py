"""Blocking calls of a client that may never come back, made for someone who does not wait for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

A = TypeVar("A")

# So often a wait looks whether it is still wanted. Pieces, and not a deadline: a process that was stopped meanwhile
# (SIGSTOP) has not waited.
PIECE_SECONDS = 2.0
PIECES = 5


class Unanswered(Exception):
    """A call of the client has not come back in time, and may never: another client has to take its place."""


class Calls:
    """The calls of one client, one after another, on a thread of their own.

    A call that hangs holds this thread and its client, and nobody else; they end when it does.
    """

    def __init__(self, name: str) -> None:
        """Start the thread, a daemon: what hangs must not keep the process from ending."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._under_way: Future[Any] | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def make(self, what: str, call: Callable[[], A], go_on: Callable[[], None]) -> A:
        """Make a call and wait for its end; returns or raises what it does.

        Raises Unanswered where it does not end within `PIECES` times `PIECE_SECONDS`, and at once for every later call
        until it has; and what `go_on` raises, which is asked after each piece.
        """
        if self._under_way is not None and not self._under_way.done():
            raise Unanswered(f"{what} has to wait for an earlier call, which does not come back")
        self._under_way = future = Future[A]()
        self._jobs.put((call, future))
        for _ in range(PIECES):
            if wait([future], PIECE_SECONDS).done:
                return future.result()
            go_on()
        raise Unanswered(f"{what} did not come back within {PIECES * PIECE_SECONDS:g} s")

    def end(self, last: Callable[[], object]) -> None:
        """Have `last` called as soon as nothing else is under way, and end the thread. Returns at once."""
        self._jobs.put((last, Future()))
        self._jobs.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            try:
                # A client may return with an exception pending, which breaks whatever is called next: here it would be
                # the future's lock. Called through `partial` it is raised at once.
                answer = partial(call)()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(answer)
            del job, call, future

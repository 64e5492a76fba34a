"""The deadline of a try: one timer for all tries of a stage, since all have the same time and so end as they began."""

from __future__ import annotations

import asyncio
from types import TracebackType

from pipeline.core.retry import TryTimeout


class Deadlines:
    """Cuts tries that take longer than `seconds`. Promises what `asyncio.timeout` does, without a timer for each."""

    __slots__ = ("_ends", "_timer", "_who", "seconds")

    def __init__(self, who: str, seconds: float) -> None:
        """Begin with nothing running. `who` is named in the error."""
        self.seconds = seconds
        self._who = who
        self._ends: dict[Limit, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> Limit:
        """Limit the time of a block, in the current task: `with` raises TryTimeout where the block was cut."""
        return Limit(self)

    def began(self, limit: Limit) -> None:
        """Count the time of `limit` from now."""
        loop = asyncio.get_running_loop()
        self._ends[limit] = end = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._cut)

    def ended(self, limit: Limit) -> None:
        """Forget `limit`. The timer stays: it is set anew at most once in the time of a try."""
        self._ends.pop(limit, None)

    def timeout(self) -> TryTimeout:
        """Make the error of a try that was cut."""
        return TryTimeout(f"{self._who} took longer than {self.seconds:g} s", code="timeout")

    def _cut(self) -> None:
        """Cut what is due, oldest first, and wait for the next."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for limit, end in list(self._ends.items()):
            if end > now:
                self._timer = loop.call_at(end, self._cut)
                return
            del self._ends[limit]
            limit.cut()


class Limit:
    """One block of one task that may be cut."""

    __slots__ = ("_before", "_deadlines", "_task", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        """Use `deadlines`; no time passes yet."""
        self.expired = False
        self._deadlines = deadlines

    def cut(self) -> None:
        """Cancel the block."""
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        """Begin. Raises RuntimeError outside of a task, which alone can be cut."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a try has a deadline only inside a task")
        self._task = task
        self._before = task.cancelling()
        self._deadlines.began(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make a cancellation of ours, and a TimeoutError that came of it, a TryTimeout; let others pass."""
        self._deadlines.ended(self)
        if not self.expired:
            return
        ours = self._task.uncancel() <= self._before  # else somebody else has asked for it as well
        if (ours and kind is asyncio.CancelledError) or isinstance(error, TimeoutError):
            raise self._deadlines.timeout() from None

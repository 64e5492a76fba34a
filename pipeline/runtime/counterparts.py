"""Counterparts: the partitions of the same number that what a source partition leads to will be written to.

A topic grows from the end of the chain to its beginning (`topics grow`), but a hand or a slow cluster may do it
otherwise. A source partition that is ahead waits; nothing of it is failed for that (design section 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipeline.core.record import Partition
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.plan import Plan
from pipeline.telemetry import logs

AHEAD = "it waits for its counterparts"
LOOK_SECONDS = 2.0

Counts = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""Ask how many partitions topics have; those that do not exist are left out."""


class Counterparts:
    """Pauses partitions of one stage that have no counterparts yet, and lets them go when they have.

    Without `counts`, or where keys choose the partitions, nothing ever waits.
    """

    def __init__(self, plan: Plan, assignment: Assignment, counts: Counts | None) -> None:
        """Know of no partition yet."""
        self.reason = ""
        self._assignment = assignment
        self._counts = None if plan.stage.repartition else counts
        self._topics = plan.written
        self._known = 0
        self._look_again = 0.0
        self._looking: asyncio.Task[None] | None = None

    def gate(self, name: Partition) -> str | None:
        """Say why a partition that arrives has to wait."""
        return AHEAD if self._counts is not None and name.number >= self._known else None

    async def begin(self) -> None:
        """Look before the first partition arrives, so that none is paused for nothing."""
        self._start(0.0)
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=LOOK_SECONDS)

    def tend(self, now: float) -> None:
        """Look again every few seconds while anything waits. `now` is in the loop's seconds."""
        if now >= self._look_again and any(AHEAD in part.pauses for part in self._assignment.parts.values()):
            self._start(now)

    def _start(self, now: float) -> None:
        if self._counts is not None and self._looking is None:
            self._look_again = now + LOOK_SECONDS
            self._looking = asyncio.create_task(self._look(self._counts))
            self._looking.add_done_callback(self._looked)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look(self, counts: Counts) -> None:
        found = await counts(self._topics)
        least = min(self._topics, key=lambda topic: found.get(topic, 0))
        self._known = found.get(least, 0)
        ahead = 0
        for name, part in self._assignment.parts.items():
            if name.number < self._known:
                self._assignment.resume(part, AHEAD)
            else:
                ahead += 1
        reason = f"{ahead} partitions wait for their counterparts: {least} has {self._known}" if ahead else ""
        if reason and reason != self.reason:
            logs.get().warning(
                f"{reason}. `pipeline topics grow` makes them", action="counterparts_missing", topic=least
            )
        self.reason = reason

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is asked again: the cluster may be away, and then nothing flows either.
            logs.get().warning(f"cannot count the partitions of topics: {error}", action="counterparts_unknown")

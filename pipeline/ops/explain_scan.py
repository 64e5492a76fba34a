"""Reading what stands on topics now, to the ends they had when it was begun, and no further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from pipeline.core.ports import Reader
from pipeline.core.record import Partition, Record

# Short, as what stands last may be a transaction's marker, of which no fetch tells before it gives up.
FETCH_RECORDS, FETCH_SECONDS = 2_000, 0.1
STILL_SECONDS = 30.0
"""After so long without any progress the rest is given up, and said to be unread."""

Progress = Callable[[str, int, int], None]


class Sweep:
    """Reads each partition from the start to the stop of its span, all at once; in order within a partition only.

    What is in no span is not returned. `unread` names, once it is through, the partitions whose stop was not reached.
    """

    def __init__(self, reader: Reader, spans: Mapping[Partition, range], what: str, progress: Progress) -> None:
        """Read nothing yet. `progress` is told `what` is read, and how many offsets of how many are behind."""
        self._reader = reader
        self._spans = {name: span for name, span in spans.items() if span.start < span.stop}
        self._what = what
        self._progress = progress
        self.unread = frozenset(self._spans)

    async def records(self) -> AsyncIterator[Record]:
        """Go through the records."""
        clock = asyncio.get_running_loop().time
        stood: Mapping[Partition, int] = {}
        moved = clock()
        for name, whole in self._spans.items():
            self._reader.follow(name, whole.start)
        while self.unread:
            records = await self._reader.fetch(FETCH_RECORDS, FETCH_SECONDS)
            for record in records:
                span = self._spans.get(Partition(record.topic, record.partition))
                if span is not None and record.offset < span.stop:
                    yield record
            positions = dict(self._reader.positions())
            if positions != stood:
                stood, moved = positions, clock()
            elif clock() - moved > STILL_SECONDS:
                break
            self._leave(positions)
        self._reader.leave(self.unread)

    def _leave(self, positions: Mapping[Partition, int]) -> None:
        reached = {name for name in self.unread if positions.get(name, -1) >= self._spans[name].stop}
        if reached:
            self._reader.leave(reached)
            self.unread -= reached
        self._progress(self._what, *self._behind(positions))

    def _behind(self, positions: Mapping[Partition, int]) -> tuple[int, int]:
        total = sum(len(span) for span in self._spans.values())
        left = sum(
            self._spans[name].stop - max(positions.get(name, 0), self._spans[name].start) for name in self.unread
        )
        return total - left, total

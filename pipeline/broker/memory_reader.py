"""The port `Reader` on the broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from pipeline.broker.bell import Bell
from pipeline.core.record import Partition, Record

_ROUNDING = 1e-6  # a timer may ring earlier by as much as a float is rounded, and would ring for ever


class Shelves(Protocol):
    """What a reader needs of the broker."""

    def read(self, name: Partition, offset: int, limit: int) -> Sequence[Record]:
        """Return records from `offset` on."""
        ...

    def range(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset and the next one; raises LookupError where there is no such partition."""
        ...


class MemoryReader:
    """Reads as the real one does; what it is asked for is carried out by its next fetch."""

    def __init__(self, logs: Shelves) -> None:
        """Read nothing yet."""
        self._logs = logs
        self._next: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._bell = Bell()
        self._closed = False

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Look up the next offset to be written of each partition."""
        await asyncio.sleep(0)
        found = {name: self._range(name) for name in partitions}
        return {name: bounds[1] for name, bounds in found.items() if bounds is not None}

    def follow(self, partition: Partition, offset: int) -> None:
        """Read a partition from `offset` on."""
        self.leave([partition])
        self._next[partition] = offset
        self.wake()

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these no more."""
        for name in partitions:
            self._next.pop(name, None)
            self._positions.pop(name, None)

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not self._closed:
            records = self._take(limit)
            if records or asyncio.get_running_loop().time() >= deadline - _ROUNDING:
                return records
            await self._bell.wait(deadline)
        return ()

    def positions(self) -> Mapping[Partition, int]:
        """Return where reading stood after the last fetch."""
        return self._positions

    async def close(self) -> None:
        """Stop."""
        self._closed = True
        self.wake()

    def wake(self) -> None:
        """Let a waiting fetch look again."""
        self._bell.ring()

    def _range(self, name: Partition) -> tuple[int, int] | None:
        try:
            return self._logs.range(name)
        except LookupError:
            return None

    def _take(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for name, offset in list(self._next.items()):
            bounds = self._range(name)
            if bounds is None:
                continue
            start = offset if bounds[0] <= offset <= bounds[1] else bounds[0]
            taken = self._logs.read(name, start, limit - len(records))
            # To the end of the line, so that no partition is always served first.
            self._next.pop(name)
            self._next[name] = start + len(taken)
            records += taken
        here = {name: offset for name, offset in self._next.items() if self._range(name) is not None}
        self._positions = here
        return records

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

    def read_committed(self, name: Partition, offset: int, limit: int) -> tuple[Sequence[Record], int]:
        """Return records that are there for good, and the offset to read on from."""
        ...

    def range(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset and the next one; raises LookupError where there is no such partition."""
        ...

    def range_committed(self, name: Partition) -> tuple[int, int]:
        """Return the oldest offset and the next one that a group is to see; raises LookupError as well."""
        ...


class MemoryReader:
    """Reads as the real one does; what it is asked for is carried out by its next fetch."""

    def __init__(self, logs: Shelves, *, committed: bool = False) -> None:
        """Read nothing yet. What is read is what a group sees, where it is to be `committed`."""
        self._logs = logs
        self._committed = committed
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
            return self._logs.range_committed(name) if self._committed else self._logs.range(name)
        except LookupError:
            return None

    def _read(self, name: Partition, offset: int, limit: int) -> tuple[Sequence[Record], int]:
        if self._committed:
            return self._logs.read_committed(name, offset, limit)
        records = self._logs.read(name, offset, limit)
        return records, offset + len(records)

    def _take(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for name, offset in list(self._next.items()):
            bounds = self._range(name)
            if bounds is None:
                continue
            start = offset if bounds[0] <= offset <= bounds[1] else bounds[0]
            taken, following = self._read(name, start, limit - len(records))
            # To the end of the line, so that no partition is always served first.
            self._next.pop(name)
            self._next[name] = following
            records += taken
        here = {name: offset for name, offset in self._next.items() if self._range(name) is not None}
        self._positions = here
        return records

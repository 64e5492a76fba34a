"""Where partitions end, asked for together: a reader's broker answers a question only behind the fetch under way.

That takes up to half a second, and a rebalance brings dozens of partitions at once, none of which may be taken from
before its ends are known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline.core.ports import Reader
from pipeline.core.record import Partition

Found = Mapping[Partition, int]


class Ends:
    """Makes one question of all that are asked while another one is under way. `keep` is given each question's task."""

    def __init__(self, reader: Reader, keep: Callable[[asyncio.Task[Any]], None]) -> None:
        """Ask nothing yet."""
        self._reader = reader
        self._keep = keep
        self._wanted: set[Partition] = set()
        self._next: asyncio.Task[Found] | None = None
        self._turn = asyncio.Lock()

    async def of(self, partitions: Collection[Partition]) -> Found:
        """Look up the next offset to be written of each partition, as of a moment after this call."""
        self._wanted.update(partitions)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._ask())
            self._keep(self._next)
        found = await self._next
        return {name: found[name] for name in partitions if name in found}

    async def _ask(self) -> Found:
        async with self._turn:
            wanted, self._wanted, self._next = self._wanted, set(), None
            return await self._reader.ends(wanted)

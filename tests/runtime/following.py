"""What tests of costly stages share: a reader with faults, and how to count what was paid."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.memory_reader import MemoryReader
from pipeline.core.offset_map import Progress, read
from pipeline.core.record import Partition, Record
from pipeline.core.stage import Stage
from tests.runtime.world import Run, Script, World


class Reader:
    """A reader that can be slow, away, or cut off after so many records. Counts what it has read."""

    def __init__(self, broker: MemoryBroker, lag: float = 0.0) -> None:
        self.lag = lag
        self.away = False
        self.count = 0
        self.failure: Exception | None = None
        self._inner: MemoryReader = broker.reader()

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        while self.away:
            await asyncio.sleep(1.0)
        return await self._inner.ends(partitions)

    def follow(self, partition: Partition, offset: int) -> None:
        self._inner.follow(partition, offset)

    def leave(self, partitions: Collection[Partition]) -> None:
        self._inner.leave(partitions)

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        if self.failure is not None:
            raise self.failure
        if self.away:
            await asyncio.sleep(timeout)
            return ()
        records = await self._inner.fetch(limit, timeout)
        self.count += len(records)
        if records and self.lag:
            await asyncio.sleep(self.lag)
        return records

    def positions(self) -> Mapping[Partition, int]:
        return self._inner.positions()

    async def close(self) -> None:
        await self._inner.close()


def costly(**policy: Any) -> Stage:
    """The usual stage, whose calls cost."""
    return World.stage(costly=True, **policy)


def calls(*handlers: Script) -> dict[str, int]:
    """How often each text was paid for, by whichever worker."""
    return dict(Counter(text for handler in handlers for text in handler.texts))


async def uncommitted(world: World, handler: Script, **policy: Any) -> Run:
    """Start a worker whose commits are all lost."""
    run = await world.start(handler, costly(**policy))
    run.consumer.loses_commits = True
    return run


def progress(world: World, topic: str = "t.in", number: int = 0) -> Progress:
    """What the metadata of a partition's commit say."""
    commit = world.broker.group("t.work").committed[Partition(topic, number)]
    return read(commit.offset, commit.metadata)

"""A world of exactly-once stages, and a look at it that never ends: outputs and offsets are equal at every moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.core import headers as h
from pipeline.core.offset_map import read
from pipeline.core.record import Partition
from pipeline.core.stage import Stage
from pipeline.devkit.clock import wall
from tests.runtime.world import World, header

ONCE = "exactly once"


def stage(**policy: Any) -> Stage:
    """The usual stage, exactly once."""
    return World.stage(delivery=ONCE, **policy)


async def slow_world(partitions: int = 1, transact: float = 0.0) -> World:
    """A world whose transactions take `transact` seconds a step."""
    return await World.make(partitions, MemoryBroker(wall, MemoryTimes(transact=transact)))


def answered(world: World) -> set[str | None]:
    """The positions of the records whose outputs a reader sees; fails where one is there twice."""
    sources = [header(record, h.SOURCE) for record in world.records("t.out")]
    assert [source for source, count in Counter(sources).items() if count > 1] == []
    return set(sources)


def committed(world: World) -> set[str | None]:
    """The positions of the records that the group takes for settled."""
    done: set[str | None] = set()
    for name, commit in world.broker.group("t.work").committed.items():
        offsets = [*range(commit.offset), *(one for part in read(*commit).settled for one in part)]
        done.update(f"{name.topic}/{name.number}/{offset}" for offset in offsets if name.topic == "t.in")
    return done


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[None]:
    """Look all the time: what is answered is committed, and the other way round."""
    over = False
    name = Partition("t.out", 0)

    async def look() -> None:
        before: object = None
        while not over:
            now = (dict(world.broker.group("t.work").committed), world.broker.range(name))
            if now != before:
                assert answered(world) == committed(world)
            before = now
            await asyncio.sleep(0.05)

    task = asyncio.create_task(look())
    yield
    over = True
    await task


async def finish(world: World, count: int) -> None:
    """Wait until `count` records are committed, and stop."""
    parts = range(world.partitions)
    await world.until(lambda: sum(world.at("t.in", number) or 0 for number in parts) == count, seconds=600)
    await world.settle(5)
    assert len(answered(world)) == count
    await world.stop()

"""What the runner commits is what freshness is told by: `clients.passage_freshness` against a stage at work."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.clients.passage_freshness import Foreign, SettledFreshness
from pipeline.core.errors import Retry
from pipeline.devkit.clock import wall
from tests.runtime.world import Script, World


def freshness(world: World) -> SettledFreshness:
    """Look at the stage `work`."""
    return SettledFreshness(world.broker, "t.work", ["t.in"], ["t.work.retry.10s", "t.work.retry.1m"], Foreign(), wall)


@pytest.mark.virtual
async def test_an_index_has_caught_up_once_the_last_copy_is_applied() -> None:
    """A record that goes through two tiers is waited for; those that are written meanwhile, without end, are not."""
    world = await World.make(partitions=3)
    run = await world.start(Script(a=[Retry("away"), Retry("away")]))
    index = freshness(world)
    world.put("a", partition=1)
    began = asyncio.get_running_loop().time()
    written = 0
    while not await index.caught_up("handbook", 7, "me"):
        assert "a" not in run.handler.done or asyncio.get_running_loop().time() - began < 120
        world.put(f"n{written}", key=b"%d" % written, partition=written % 3)
        written += 1
        await asyncio.sleep(0.1)
    assert "a" in run.handler.done
    assert written > 600
    assert sum(world.tiers().values()) == 2
    await world.stop()


@pytest.mark.virtual
async def test_a_stage_at_rest_has_caught_up() -> None:
    """Where everything is settled, and also where nothing was ever written, the first question is answered by yes."""
    world = await World.make()
    await world.start(Script())
    await world.settle()
    assert await freshness(world).caught_up("handbook", 7, "me")
    world.put("a")
    await world.settle()
    assert await freshness(world).caught_up("handbook", 7, "me")
    await world.stop()


@pytest.mark.virtual
async def test_without_a_stage_nothing_catches_up() -> None:
    """What nobody reads is never said to be there; a worker that comes later makes it so."""
    world = await World.make()
    run = await world.make_run(Script(), world.stage())
    index = freshness(world)
    world.put("a")
    assert not await index.caught_up("handbook", 7, "me")
    run.task = asyncio.create_task(run.runner.run())
    world.runs.append(run)
    await world.settle()
    assert await index.caught_up("handbook", 7, "me")
    await world.stop()

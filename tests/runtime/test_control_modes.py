"""Pauses and cancellations in each mode of a stage: costly, exactly once, at most once, with retries in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core.errors import Defer, Retry
from pipeline.core.record import Partition
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage
from pipeline.devkit.clock import wall
from tests.runtime.test_runner_control import Told, cancel, codes, of, pause
from tests.runtime.world import Run, Script, World

SECOND = Partition("t.in", 1)

MODES: dict[str, dict[str, Any]] = {
    "costly": {"costly": True},
    "exactly once": {"delivery": "exactly once"},
    "at most once": {"delivery": "at most once"},
    "in place": {"retry": RetryPolicy((20.0,), in_place=True)},
    "costly, in place": {"costly": True, "retry": RetryPolicy((20.0,), in_place=True)},
}


def stage(mode: str, **policy: Any) -> Stage:
    """The usual stage in a mode."""
    return World.stage(timeout=600, **MODES[mode], **policy)


async def _waits(world: Told, mode: str) -> Run:
    """Its next try is due later, in a tier or in place."""
    return await world.begin(Script(a=[Retry("not yet")]), stage(mode))


async def _defers(world: Told, mode: str) -> Run:
    """The job waits in place."""
    return await world.begin(Script(a=[Defer("not now", until=wall() + 25)]), stage(mode))


async def _runs(world: Told, mode: str) -> Run:
    """The job's handler runs."""
    return await world.begin(Script(30.0), stage(mode))


async def _queues(world: Told, mode: str) -> Run:
    """The job is ready, and all slots are taken."""
    world.put("other", key=None, headers=of("o"))
    return await world.begin(Script(30.0), stage(mode, concurrency=1))


async def _stands_behind(world: Told, mode: str) -> Run:
    """The job stands in its key's queue behind another."""
    world.put("other", headers=of("o"))
    return await world.begin(Script(30.0), stage(mode))


async def _held(world: Told, mode: str) -> Run:
    """The job is held by a pause."""
    world.tell(pause(tenant="acme"))
    return await world.begin(Script(), stage(mode))


async def _stage_held(world: Told, mode: str) -> Run:
    """All work of the stage is held."""
    world.tell(pause(stage="work"))
    return await world.begin(Script(), stage(mode))


@pytest.mark.virtual
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", [_waits, _defers, _runs, _queues, _stands_behind, _held, _stage_held])
async def test_a_job_is_cancelled_wherever_it_is(place: Callable[[Told, str], Any], mode: str) -> None:
    """It ends by one failure event `cancelled` and is not handled any more, in any mode."""
    world = await Told.of()
    run = await place(world, mode)
    world.put("a", headers=of("j", "acme"))
    await world.settle(3)
    tried = run.handler.texts.count("a")
    world.tell(cancel("j"))
    world.tell(pause(stage="work"), back=True)
    await world.until(lambda: codes(world), seconds=60)
    await world.until(lambda: world.metric("window_records") == 0)
    await world.settle(30)
    assert codes(world) == ["cancelled"]
    assert (run.handler.texts.count("a"), run.handler.running) == (tried, [])
    assert world.at() == len(world.records("t.in"))
    assert (world.dead(), "a!" in world.texts()) == ([], False)
    await world.end()


@pytest.mark.virtual
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", [{"stage": "work"}, {"tenant": "acme"}])
async def test_what_a_pause_holds_is_handled_once_when_it_is_over(scope: dict[str, str], mode: str) -> None:
    """What runs is finished, what waits waits on, over a restart too; afterwards each is handled, and nothing twice."""
    world = await Told.of()
    handler = Script(5.0, c=[Retry("not yet")])
    run = await world.begin(handler, stage(mode, concurrency=2))
    for text in "cabde":
        world.put(text, key=text.encode(), headers=of(f"job-{text}", "acme"))
    await world.until(lambda: "c" in handler.texts and len(handler.running) == 2)
    world.tell(pause(**scope))
    await world.settle(100)
    assert len(handler.calls) <= 3
    await run.stop()
    again = await world.begin(Script(5.0), stage(mode, concurrency=2))
    await world.settle(100)
    assert again.handler.calls == []
    world.tell(pause(**scope), back=True)
    await world.until(lambda: len(world.texts()) == 5, seconds=200)
    await world.settle(30)
    assert sorted(world.texts()) == ["a!", "b!", "c!", "d!", "e!"]
    assert (codes(world), world.dead()) == ([], [])
    assert sorted(handler.texts + again.handler.texts) == ["a", "b", "c", "c", "d", "e"]
    await world.end()

"""A worker: several stages in one process, each with its own fate."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.errors import Halt
from pipeline.runtime.runner import Runner
from pipeline.runtime.worker import Worker
from tests.runtime.world import END, OUT, Run, Script, World


async def pair(world: World, first: Script, second: Script) -> tuple[Worker, list[Run]]:
    """Make a worker of two stages in a row. Their runners are begun by the worker, not by the world."""
    runs = [
        await world.make_run(first, world.stage(name="first")),
        await world.make_run(second, world.stage(OUT, output=END, name="second")),
    ]
    return Worker([run.runner for run in runs]), runs


@pytest.mark.virtual
async def test_a_clean_stop_is_zero() -> None:
    """Both stages drain, also when they are asked twice."""
    world = await World.make()
    worker, _ = await pair(world, Script(), Script())
    task = asyncio.create_task(worker.run())
    world.put("a")
    await world.until(lambda: world.records("t.end"))
    before = worker.stopping
    worker.stop()
    worker.stop()
    assert (before, worker.stopping) == (False, True)
    assert await task == 0
    assert [runner.state for runner in worker.runners] == ["stopped", "stopped"]


@pytest.mark.virtual
async def test_a_stage_that_halts_stops_alone_and_the_exit_code_tells() -> None:
    """The other one goes on; the worker ends when that is stopped, with 1."""
    world = await World.make()
    worker, _ = await pair(world, Script(a=[Halt("no")]), Script())
    task = asyncio.create_task(worker.run())
    world.put("a")
    await asyncio.sleep(1)
    world.put("b", topic="t.out")
    await world.until(lambda: world.records("t.end"))
    assert [runner.state for runner in worker.runners] == ["halted", "running"]
    assert [runner.status() for runner in worker.runners] == [
        ("first", False, "halted: no"),
        ("second", True, "running"),
    ]
    worker.stop()
    assert await task == 1


@pytest.mark.virtual
async def test_a_bug_ends_the_process_after_the_others_have_drained() -> None:
    """What nobody may raise is raised to the top, and the other stage finishes what it has first."""
    world = await World.make()
    worker, runs = await pair(world, Script(), Script(3.0))
    task = asyncio.create_task(worker.run())
    world.put("a", topic="t.out")
    await asyncio.sleep(1)
    runs[0].consumer.failure = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await task
    assert world.texts("t.end") == ["a!"]
    assert world.at("t.out", stage="second") == 1


@pytest.mark.virtual
async def test_a_cancelled_worker_drains() -> None:
    """Cancelling `run` stops all stages as a signal would, and is still a cancellation."""
    world = await World.make()
    worker, _ = await pair(world, Script(2.0), Script())
    task = asyncio.create_task(worker.run())
    world.put("a")
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.at(stage="first") == 1


@pytest.mark.virtual
async def test_a_stage_that_waits_for_its_broker_says_so() -> None:
    """Running without a connection is not ready, and its state in words names the broker."""
    world = await World.make()
    run = await world.start(Script())
    assert run.runner.status() == ("work", False, "starting")
    await world.settle()
    run.consumer.up = False
    assert run.runner.status() == ("work", False, "waiting for the broker")
    run.consumer.up = True
    assert run.runner.status() == ("work", True, "running")
    await world.stop()
    assert run.runner.status() == ("work", False, "stopped")
    assert isinstance(run.runner, Runner)

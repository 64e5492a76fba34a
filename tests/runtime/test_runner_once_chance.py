"""Exactly once, whatever happens: workers come, go, die and stall at random, and transactions fail as they like."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.broker.memory_transactions import Fault
from tests.runtime.once_world import finish, slow_world, stage, watched
from tests.runtime.world import Run, Script, World

pytestmark = pytest.mark.virtual

moves = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from(["start", "start", "stop", "kill", "stall", "fault"])),
    min_size=1,
    max_size=7,
)


@settings(max_examples=8)
@given(
    moves=moves,
    times=st.lists(st.floats(0, 2), min_size=5, max_size=5),
    transact=st.sampled_from([0.0, 0.01, 0.15, 1.0]),
    faults=st.lists(st.sampled_from([None, "abort", "unheard", "unheard abort"]), max_size=6),
)
async def test_whatever_happens_each_output_is_there_once(
    moves: list[tuple[float, str]], times: list[float], transact: float, faults: list[Fault | None]
) -> None:
    """Workers start, stop, die and stand still, transactions fail and go unheard: outputs and offsets stay equal."""
    world = await slow_world(3, transact)
    for number in range(45):
        world.put(f"{number % 9}:{number // 9}", key=b"%d" % (number % 9), partition=number % 3)
    async with watched(world):
        for pause, move in moves:
            await act(world, move, times, faults)
            await asyncio.sleep(pause)
        if not alive(world):
            await act(world, "start", times, [])
        await finish(world, 45)


def alive(world: World) -> list[Run]:
    """The workers that run."""
    return [run for run in world.runs if not run.task.done() and not run.consumer.dead]


async def act(world: World, move: str, times: list[float], faults: list[Fault | None]) -> None:
    """Do one thing to the workers."""
    living = alive(world)
    if move == "start":
        script = Script(lambda text: times[sum(map(ord, text)) % 5])
        await world.start(script, stage(concurrency=4), tiers=False, patience=1.0, drain_seconds=2.5)
    elif living and move == "stop":
        await living[0].stop()
    elif living and move == "kill":
        await living[-1].kill()
    elif living and move == "stall":
        living[0].consumer.stall = 2.5
    elif living:
        living[0].transactions.faults.extend(faults)

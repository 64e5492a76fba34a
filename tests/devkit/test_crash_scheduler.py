"""Several processes on one loop, any of which stops between two of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random

import pytest

from pipeline.devkit.crash.scheduler import CrashLoop, Process, outside, owner


def play(main: Callable[[], Coroutine[object, object, None]], seed: int = 0) -> None:
    with asyncio.Runner(loop_factory=lambda: CrashLoop(Random(seed))) as runner:
        runner.run(main())


async def steps(done: list[str], name: str, count: int = 5) -> None:
    for number in range(count):
        done.append(f"{name}{number}")
        await asyncio.sleep(0)


def test_a_stopped_process_does_nothing_and_goes_on_where_it_stood() -> None:
    """While it stands still time passes and others work; what became due meanwhile runs when it goes on, in order."""
    done: list[str] = []

    async def main() -> None:
        process = Process("p")
        process.later(1.0, done.append, "first")
        process.later(2.0, done.append, "second")
        process.running = False
        outside(3.0, done.append, "outside")
        await asyncio.sleep(5.0)
        assert done == ["outside"]
        process.running = True
        await asyncio.sleep(0.1)
        assert done == ["outside", "first", "second"]

    play(main)


@pytest.mark.parametrize("count", range(5))
def test_a_process_stops_at_any_await(count: int) -> None:
    """A trap stops it after exactly so many steps, wherever in its work that is; a dead one never ends its work."""
    done: list[str] = []

    async def main() -> None:
        process = Process("p")
        task = process.start(steps(done, "p"))
        process.trap(count, lambda: setattr(process, "running", False))
        await asyncio.sleep(1.0)
        assert done == [f"p{number}" for number in range(count)]
        assert process.tasks == {task}
        process.running = True
        await task
        await asyncio.sleep(0)
        assert not process.tasks

    play(main)


def interleaved(seed: int) -> list[str]:
    done: list[str] = []

    async def main() -> None:
        await asyncio.gather(*(Process(name).start(steps(done, name)) for name in "ab"))

    play(main, seed)
    return done


def test_the_seed_says_who_is_next() -> None:
    """Equal seeds give equal orders, other seeds others; within one process the order is always its own."""
    assert interleaved(1) == interleaved(1)
    assert len({tuple(interleaved(seed)) for seed in range(10)}) > 5
    assert [one for one in interleaved(3) if one[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]


def test_what_comes_of_a_step_belongs_to_its_process() -> None:
    """Tasks, timers and callbacks that a process begins are its own; what is asked for outside is nobody's."""
    seen: dict[str, Process | None] = {}

    async def main() -> None:
        process = Process("p")

        def note(what: str) -> None:
            seen[what] = owner()

        async def begin() -> None:
            asyncio.get_running_loop().call_later(0.1, note, "timer")
            outside(0.1, note, "outside")
            await asyncio.create_task(child())

        async def child() -> None:
            note("task")

        await process.start(begin())
        await asyncio.sleep(1.0)
        assert seen == {"task": process, "timer": process, "outside": None}

    play(main)

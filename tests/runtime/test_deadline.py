"""Deadlines: a try that takes too long is cut, at its time, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.retry import TryTimeout
from pipeline.runtime.deadline import Deadlines


async def limited(deadlines: Deadlines, seconds: float) -> str:
    """Sleep under a deadline; tell when and how that ended."""
    loop = asyncio.get_running_loop()
    try:
        with deadlines.limit():
            await asyncio.sleep(seconds)
    except TryTimeout as cut:
        return f"{cut.reason} at {loop.time():g}"
    return f"done at {loop.time():g}"


@pytest.mark.virtual
async def test_each_try_is_cut_at_its_own_time() -> None:
    """Tries that began at different times end at different times, though one timer serves all; short ones are done."""
    start = asyncio.get_running_loop().time()
    deadlines = Deadlines("work", 10)

    async def later(delay: float, seconds: float) -> str:
        await asyncio.sleep(delay)
        return await limited(deadlines, seconds)

    ends = await asyncio.gather(later(0, 99), later(1, 2), later(1, 99), later(4, 99), later(30, 99), later(30, 1))
    cut = "work took longer than 10 s at"
    expected = [f"{cut} {start + 10:g}", f"done at {start + 3:g}", f"{cut} {start + 11:g}", f"{cut} {start + 14:g}"]
    assert [*expected, f"{cut} {start + 40:g}", f"done at {start + 31:g}"] == list(ends)


@pytest.mark.virtual
async def test_a_cancellation_of_somebody_elses_passes() -> None:
    """Before the deadline, and also together with it: who asked for the end of the task gets it."""
    deadlines = Deadlines("work", 10)
    early, together = (asyncio.create_task(limited(deadlines, 99)) for _ in range(2))
    await asyncio.sleep(5)
    early.cancel()
    asyncio.get_running_loop().call_later(5, together.cancel)
    await asyncio.wait([early, together])
    assert (True, True) == (early.cancelled(), together.cancelled())


@pytest.mark.virtual
async def test_a_task_that_was_cut_can_go_on() -> None:
    """The cancellation is taken back: the next thing that the task awaits is not cut."""
    assert (await limited(Deadlines("work", 1), 2)).startswith("work took longer")
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()
    await asyncio.sleep(1)


@pytest.mark.virtual
async def test_what_swallows_its_cut_is_done() -> None:
    """A result that came although its time was up is a result."""
    answer = 0
    with Deadlines("work", 1).limit():
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            answer = 1
    assert 1 == answer


@pytest.mark.virtual
@pytest.mark.parametrize("seconds, error", [(0.5, TimeoutError), (2.0, TryTimeout)])
async def test_a_timeout_of_the_handlers_own_is_its_own(seconds: float, error: type[Exception]) -> None:
    """Unless it came of being cut."""

    async def handler() -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            raise TimeoutError from None
        raise TimeoutError

    with pytest.raises(error), Deadlines("work", 1).limit():
        await handler()


def test_outside_of_a_task_there_is_nothing_to_cut() -> None:
    """That is a mistake in the code, and is said at once."""

    async def alone() -> None:
        with Deadlines("work", 1).limit():
            pass

    loop = asyncio.new_event_loop()
    failures: list[str] = []

    def step() -> None:
        try:
            alone().send(None)
        except RuntimeError as error:
            failures.append(str(error))
        loop.stop()

    loop.call_soon(step)
    loop.run_forever()
    loop.close()
    assert ["a try has a deadline only inside a task"] == failures

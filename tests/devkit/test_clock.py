"""Virtual time: the loop's clock jumps to the next timer, and nobody waits for real."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from pipeline.devkit.clock import EPOCH, Stuck, VirtualLoop, wall


def virtual_loop() -> VirtualLoop:
    """Return the running virtual loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


@pytest.mark.virtual
async def test_time_starts_at_zero_and_the_wall_at_the_epoch() -> None:
    """Every test begins at the same moment, so its timestamps are the same on every machine."""
    assert asyncio.get_running_loop().time() == 0.0
    assert wall() == EPOCH


@pytest.mark.virtual
async def test_a_day_passes_at_once() -> None:
    """A sleep moves both clocks by exactly its length, and takes no time of ours."""
    before = time.monotonic()
    await asyncio.sleep(86_400)
    assert asyncio.get_running_loop().time() == pytest.approx(86_400)
    assert wall() == pytest.approx(EPOCH + 86_400)
    assert time.monotonic() - before < 60


@pytest.mark.virtual
async def test_timers_fire_in_order_of_their_times() -> None:
    """Whoever sleeps less comes first; equal times keep the order in which they were set."""
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(f"{name}@{asyncio.get_running_loop().time():g}")

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("c", 3_600.0), ("a", 0.5), ("b1", 60.0), ("b2", 60.0)):
            group.create_task(sleeper(name, seconds))
    assert woken == ["a@0.5", "b1@60", "b2@60", "c@3600"]


@pytest.mark.virtual
async def test_a_timer_never_fires_before_its_time() -> None:
    """Sums of odd fractions do not fall short: who waits until the loop's time reaches an end gets there."""
    loop = asyncio.get_running_loop()
    for number in range(1, 2_000):
        end = loop.time() + number / 7
        future = loop.create_future()
        loop.call_at(end, future.set_result, None)
        await future
        assert loop.time() >= end


@pytest.mark.virtual
async def test_time_stands_still_while_something_is_ready() -> None:
    """Work that never waits takes no virtual time."""
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() == 0.0


@pytest.mark.virtual
async def test_timeouts_run_in_virtual_time() -> None:
    """`asyncio.timeout` cuts at its virtual deadline."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.sleep(601)
    assert asyncio.get_running_loop().time() == pytest.approx(600)


@pytest.mark.virtual
async def test_the_wall_clock_can_jump_and_the_loop_does_not() -> None:
    """`skew` moves the wall clock only, as setting a machine's clock does: timers are not touched."""
    loop = virtual_loop()
    loop.skew = -3_600
    assert wall() == EPOCH - 3_600
    assert loop.time() == 0.0
    await asyncio.sleep(10)
    loop.skew = 3_600
    assert wall() == pytest.approx(EPOCH + 3_610)
    assert loop.time() == pytest.approx(10)


@pytest.mark.virtual
async def test_sockets_work_beside_the_timers() -> None:
    """What is readable is served before time moves on, so local connections work in virtual time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        heard = asyncio.create_task(loop.sock_recv(theirs, 5))
        await asyncio.sleep(0)
        alarm = asyncio.create_task(asyncio.sleep(3_600))
        await loop.sock_sendall(ours, b"hello")
        assert await heard == b"hello"
        assert loop.time() == 0.0
        alarm.cancel()


def test_waiting_for_what_can_never_happen_is_an_error() -> None:
    """With no timer and nothing ready the loop says so at once instead of hanging."""

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="nobody will ever do"), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(wait_for_ever())


def test_a_loop_that_was_stuck_can_be_closed() -> None:
    """After Stuck the tasks are cancelled as in any loop, so their clean-up runs."""
    cleaned: list[str] = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append("up")

    with contextlib.suppress(Stuck), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(wait_for_ever())
    assert cleaned == ["up"]


async def test_the_virtual_wall_refuses_a_real_loop() -> None:
    """Whoever hands in `wall` where time is real is told so, instead of getting a clock that stands still."""
    with pytest.raises(TypeError, match="real time"):
        wall()


def test_every_loop_has_a_time_of_its_own() -> None:
    """Two loops do not share a clock: no test sees the hours of another."""

    async def sleep_and_tell() -> float:
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            assert runner.run(sleep_and_tell()) == pytest.approx(100)

"""The waiting room: never early, also where the wall clock jumps."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.clock import VirtualLoop, wall
from pipeline.runtime.waiting import WaitingRoom
from tests.examples import at_most


def loop() -> VirtualLoop:
    """Return the running virtual loop."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


class Called:
    """Remembers who was called, and when by the wall clock."""

    def __init__(self) -> None:
        self.times: list[tuple[str, float]] = []

    def __call__(self, waiter: str) -> None:
        self.times.append((waiter, wall()))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.times]


@pytest.mark.virtual
async def test_a_waiter_is_called_once_at_its_time() -> None:
    """Not before `until`, and not noticeably after it."""
    room, called, start = WaitingRoom[str](wall), Called(), wall()
    room.wait("a", start + 5, called)
    assert "a" in room
    assert len(room) == 1
    await asyncio.sleep(4.999)
    assert called.times == []
    await asyncio.sleep(10)
    assert called.names == ["a"]
    assert start + 5 <= called.times[0][1] < start + 5.001
    assert "a" not in room


@pytest.mark.virtual
async def test_a_time_that_has_passed_is_called_in_the_next_turn_of_the_loop() -> None:
    """Even a wait that is over calls back later, never inside `wait`."""
    room, called = WaitingRoom[str](wall), Called()
    room.wait("a", wall() - 100, called)
    assert called.times == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert called.names == ["a"]


@pytest.mark.virtual
async def test_a_clock_that_jumps_back_prolongs_the_wait() -> None:
    """`until` is a time by the wall clock: one that was set back an hour is waited for until it gets there."""
    room, called, until = WaitingRoom[str](wall), Called(), wall() + 10
    room.wait("a", until, called)
    await asyncio.sleep(5)
    loop().skew = -3_600
    await asyncio.sleep(3_000)
    assert called.times == []
    await asyncio.sleep(700)
    assert called.names == ["a"]
    assert called.times[0][1] >= until


@pytest.mark.virtual
async def test_a_clock_that_jumps_ahead_makes_nobody_wait_longer_than_asked() -> None:
    """A clock set ahead is noticed when the timer that was set before ends: late by the clock, as long as was asked."""
    room, called, start = WaitingRoom[str](wall), Called(), loop().time()
    room.wait("a", wall() + 10, called)
    loop().skew = 3_600
    await asyncio.sleep(11)
    assert called.names == ["a"]
    assert loop().time() - start == pytest.approx(11)


@pytest.mark.virtual
async def test_waiting_again_replaces_the_earlier_wait() -> None:
    """One waiter has one timer: the newest."""
    room, called, start = WaitingRoom[str](wall), Called(), wall()
    room.wait("a", start + 5, called)
    room.wait("a", start + 8, called)
    await asyncio.sleep(20)
    assert called.names == ["a"]
    assert called.times[0][1] >= start + 8


@pytest.mark.virtual
async def test_who_is_forgotten_is_not_called() -> None:
    """`forget` cancels one and ignores strangers; `clear` cancels all."""
    room, called = WaitingRoom[str](wall), Called()
    for name in "abc":
        room.wait(name, wall() + 5, called)
    room.forget("a")
    room.forget("stranger")
    assert len(room) == 2
    await asyncio.sleep(1)
    room.clear()
    assert len(room) == 0
    await asyncio.sleep(10)
    assert called.times == []


@pytest.mark.virtual
@settings(max_examples=at_most(50))
@given(
    waits=st.lists(st.floats(0, 1_000), min_size=1, max_size=8),
    jumps=st.lists(st.tuples(st.floats(0, 200), st.floats(-500, 500)), max_size=8),
)
async def test_nobody_is_early_whatever_the_clock_does(waits: list[float], jumps: list[tuple[float, float]]) -> None:
    """For any waits and any jumps of the wall clock: everybody is called once, none before its time."""
    room, called, start = WaitingRoom[str](wall), Called(), wall()
    untils = {str(number): start + wait for number, wait in enumerate(waits)}
    for name, until in untils.items():
        room.wait(name, until, called)
    for pause, jump in jumps:
        await asyncio.sleep(pause)
        loop().skew += jump
    await asyncio.sleep(10_000)
    assert sorted(called.names) == sorted(untils)
    assert all(at >= untils[name] for name, at in called.times)

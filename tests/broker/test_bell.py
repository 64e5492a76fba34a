"""What a fetch on the broker in memory waits for."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.broker.bell import Bell

pytestmark = pytest.mark.virtual


async def test_who_waits_is_woken() -> None:
    """A ring ends the wait at once, and a second one does no harm."""
    bell, loop = Bell(), asyncio.get_running_loop()
    begun = loop.time()
    loop.call_later(3, bell.ring)
    loop.call_later(3, bell.ring)
    await bell.wait(begun + 10)
    assert loop.time() == pytest.approx(begun + 3)


async def test_a_wait_ends_by_itself() -> None:
    """Without news it ends at its deadline; a ring that nobody waited for is not kept."""
    bell, loop = Bell(), asyncio.get_running_loop()
    bell.ring()
    begun = loop.time()
    await bell.wait(begun + 10)
    assert loop.time() == pytest.approx(begun + 10)

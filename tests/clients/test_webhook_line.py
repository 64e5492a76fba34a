"""Tests of pipeline/clients/webhook_line.py."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.clients.webhook_line import Line

pytestmark = pytest.mark.virtual


class Waiters:
    """Tasks that wait in a line, and in which order they were called."""

    def __init__(self) -> None:
        self.line = Line()
        self.called: list[str] = []

    async def stand(self, name: str, seconds: float, *, lane: str = "a", first: bool = False) -> asyncio.Task[None]:
        """Put one in the line."""

        async def wait() -> None:
            await self.line.wait(lane, seconds, first=first)
            self.called.append(name)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task


async def test_the_first_to_come_is_called_first() -> None:
    """But for one that was called before, and is first again; lanes have lines of their own."""
    waiters = Waiters()
    tasks = [await waiters.stand(name, 100.0) for name in ("one", "two")]
    tasks += [await waiters.stand("zero", 100.0, first=True), await waiters.stand("other", 100.0, lane="b")]
    for _ in range(3):
        waiters.line.call("a")
        await asyncio.sleep(1)
    assert waiters.called == ["zero", "one", "two"]
    waiters.line.call("a")
    waiters.line.call("b")
    await asyncio.wait(tasks)
    assert waiters.called[3:] == ["other"]


async def test_each_waits_its_time() -> None:
    """Who is not called asks by itself; and who asks or goes is out of the line."""
    waiters = Waiters()
    tasks = [await waiters.stand("long", 9.0), await waiters.stand("short", 1.0), await waiters.stand("gone", 5.0)]
    tasks[2].cancel()
    await asyncio.sleep(2)
    assert waiters.called == ["short"]
    last = await waiters.stand("last", 100.0)
    waiters.line.call("a")
    waiters.line.call("a")
    await asyncio.wait([tasks[0], last])
    assert waiters.called == ["short", "long", "last"]
    assert waiters.line._lanes == {}

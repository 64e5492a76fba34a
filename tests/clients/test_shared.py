"""A question that many have at once is asked once for all of them, and never answered from before it was put."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.clients.shared import Shared


class Oracle:
    """Answers with how often it was asked, when it is let; `failure` is raised instead."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.may = asyncio.Event()

    async def ask(self) -> int:
        """Answer one question."""
        self.asked += 1
        number = self.asked
        await self.may.wait()
        if self.failure:
            raise self.failure
        return number


async def _begun(oracle: Oracle, count: int) -> None:
    while oracle.asked < count:
        await asyncio.sleep(0)


async def test_who_comes_while_it_is_asked_waits_for_the_next_answer() -> None:
    """Ten at once are one question; ten more, who come while it is under way, are a second one."""
    oracle = Oracle()
    shared = Shared(oracle.ask)
    first = [asyncio.create_task(shared.answer()) for _ in range(10)]
    await _begun(oracle, 1)
    later = [asyncio.create_task(shared.answer()) for _ in range(10)]
    oracle.may.set()
    assert set(await asyncio.gather(*first)) == {1}
    assert set(await asyncio.gather(*later)) == {2}
    assert await shared.answer() == 3


async def test_all_are_told_of_a_failure_and_the_next_is_asked_anew() -> None:
    """Those who waited get the error; it is not remembered."""
    oracle = Oracle()
    oracle.failure = ValueError("no")
    oracle.may.set()
    shared = Shared(oracle.ask)
    answers = await asyncio.gather(*(shared.answer() for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in answers] == ["no"] * 3
    oracle.failure = None
    assert await shared.answer() == 2


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    """One of two is cancelled; the other is answered, and draining waits for what nobody waits for any more."""
    oracle = Oracle()
    shared = Shared(oracle.ask)
    one, other = asyncio.create_task(shared.answer()), asyncio.create_task(shared.answer())
    await _begun(oracle, 1)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    oracle.may.set()
    assert await other == 1
    left = asyncio.create_task(shared.answer())
    await _begun(oracle, 2)
    left.cancel()
    await shared.drain()
    assert oracle.asked == 2

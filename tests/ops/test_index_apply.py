"""Tests of pipeline/ops/index_apply.py."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.errors import Defer, Halt, Reject, Retry
from pipeline.devkit.clock import wall
from pipeline.ops.index_apply import PAUSES, Tally, Work, lanes

pytestmark = pytest.mark.virtual


def _ending(done: list[str], name: str, *ends: Exception) -> Work:
    """Make work that ends so the first times, and then is done."""
    left = list(ends)

    async def work() -> None:
        await asyncio.sleep(0.01)
        if left:
            raise left.pop(0)
        done.append(name)

    return work


async def test_what_has_one_key_is_done_in_order() -> None:
    """Also where the first has to wait; another key goes on meanwhile."""
    done, said, tally = list[str](), list[str](), Tally()
    async with lanes(2, tally, said.append, wall) as opened:
        away = Defer("the index is away", until=wall() + 5)
        await opened.add(0, _ending(done, "first", away, away))
        await opened.add(0, _ending(done, "second"))
        await opened.add(1, _ending(done, "other"))
        await opened.idle()
    assert done == ["other", "first", "second"]
    assert (tally.applied, set(said)) == (3, {"waiting: the index is away"})


async def test_what_is_refused_is_counted() -> None:
    """At once where trying again is pointless, else after some tries, with pauses between them."""
    done, tally = list[str](), Tally()
    async with lanes(1, tally, lambda _: None, wall) as opened:
        await opened.add("a", _ending(done, "a", Reject("too large")))
        await opened.add("b", _ending(done, "b", Retry("no vectors")))
        begun = wall()
        await opened.add("c", _ending(done, "c", *[RuntimeError("broken") for _ in range(9)]))
        await opened.idle()
    assert done == ["b"]
    assert tally.skipped == {"too large": 1, "RuntimeError: broken": 1}
    assert wall() - begun > sum(PAUSES)


async def test_a_body_that_nobody_knows_is_asked_for_again() -> None:
    """It may come later; until it does, it is kept."""
    done, tally = list[str](), Tally()
    unknown = Retry("nobody knows its body", code="no_body")
    async with lanes(1, tally, lambda _: None, wall) as opened:
        await opened.add("a", _ending(done, "a", unknown, unknown))
        await opened.idle()
        await opened.again()
        assert (len(tally.unknown), done) == (1, [])
        await opened.again()
    assert (tally.unknown, done) == ([], ["a"])


async def test_a_halt_ends_everything() -> None:
    """Whoever adds, or waits, is told."""
    tally = Tally()
    async with lanes(1, tally, lambda _: None, wall) as opened:
        await opened.add("a", _ending([], "a", Halt("it was dropped")))
        with pytest.raises(Halt, match="it was dropped"):
            await opened.idle()
        with pytest.raises(Halt, match="it was dropped"):
            await opened.add("b", _ending([], "b"))

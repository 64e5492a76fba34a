"""Tests of pipeline/clients/limiter.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pipeline.clients.limiter import BUSY_SECONDS, LimitedModel
from pipeline.core.errors import Defer, Retry
from pipeline.devkit.clock import wall
from pipeline.devkit.fakes import FakeModel
from tests.contracts.chat_model_contract import CALL


@pytest.mark.virtual
async def test_the_cap_is_never_exceeded() -> None:
    """Of many calls at once, exactly as many are in flight as are allowed; all are answered."""
    inner = FakeModel(seconds=1.0)
    model = LimitedModel(inner, 3, wall)
    answers = await asyncio.gather(*(model.complete(CALL) for _ in range(10)))
    assert (len(answers), inner.most) == (10, 3)


@pytest.mark.virtual
async def test_a_call_that_never_gets_a_slot_is_deferred() -> None:
    """Waiting counts against the call's own time; when that is over it is not our turn."""
    model = LimitedModel(FakeModel(seconds=100.0), 1, wall)
    first = asyncio.create_task(model.complete(CALL))
    await asyncio.sleep(0)
    with pytest.raises(Defer) as deferred:
        await model.complete(replace(CALL, timeout=5.0))
    assert (deferred.value.code, deferred.value.until) == ("no_slot", wall() + BUSY_SECONDS)
    assert (await first).text


@pytest.mark.virtual
async def test_the_time_spent_waiting_is_taken_off() -> None:
    """A call that waited has less time left, but never none."""
    inner = FakeModel(seconds=4.5)
    model = LimitedModel(inner, 1, wall)
    await asyncio.gather(*(model.complete(replace(CALL, timeout=5.0)) for _ in range(2)))
    assert [call.timeout for call in inner.calls] == [5.0, 1.0]


@pytest.mark.virtual
async def test_failed_and_cancelled_calls_give_their_slot_back() -> None:
    """Whatever ends a call, its slot is free again."""
    inner = FakeModel(seconds=10.0)
    model = LimitedModel(inner, 1, wall)
    inner.troubles.append(Retry("500"))
    with pytest.raises(Retry):
        await model.complete(CALL)
    cancelled = asyncio.create_task(model.complete(CALL))
    await asyncio.sleep(1.0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert (await model.complete(CALL)).text


def test_a_cap_of_nothing_is_refused() -> None:
    """A limit that would let no call through is a mistake at declaration."""
    with pytest.raises(ValueError, match="at least 1"):
        LimitedModel(FakeModel(), 0, float)

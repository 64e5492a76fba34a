"""Tests of pipeline/clients/passage_store.py: whatever comes when, and whoever dies where, the newest state stands."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.passage_world import Engine, Truth, Workers, found_in, keeper_on

pytestmark = pytest.mark.local


@pytest.mark.virtual
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 9), workers=st.integers(1, 3), deaths=st.integers(0, 4))
async def test_any_order_of_events_ends_in_the_newest(seed: int, length: int, workers: int, deaths: int) -> None:
    """Writers whose requests interleave at every step, events in any order and twice, deaths between any two requests:
    in the end the index holds exactly what the source holds, and telling it all again writes nothing."""
    random = Random(seed)
    truth, engine = Truth(random), Engine(random)
    for _ in range(length):
        truth.go_on()
    await Workers(engine, random, workers, deaths).tell_all(truth.events)
    assert await found_in(engine) == truth.expected()
    engine.random, before = None, len(engine.writes)
    keeper = keeper_on(engine)
    for event in truth.events:
        assert await event.tell(keeper) is not None
    assert len(engine.writes) == before

"""Tests of pipeline/clients/passage_store.py: whatever comes when, and whoever dies where, the newest state stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.payloads import Document
from tests.clients.passage_world import SOURCE, Engine, Event, Truth, Workers, found_in, keeper_on, kill

pytestmark = pytest.mark.local


@pytest.mark.virtual
@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 12),
    crew=st.tuples(st.integers(1, 3), st.integers(0, 4), st.booleans()),
)
@example(seed=5865, length=11, crew=(3, 1, False))  # a kept body that was raised for a mark that lost its place
async def test_any_order_of_events_ends_in_the_newest(seed: int, length: int, crew: tuple[int, int, bool]) -> None:
    """Writers whose requests interleave at every step, events in any order and twice, deaths between any two requests:
    in the end the index holds exactly what the source holds, and telling it all again writes nothing."""
    random = Random(seed)
    truth, engine = Truth(random), Engine(random)
    for _ in range(length):
        truth.go_on()
    workers = Workers(engine, random, *crew)
    await workers.tell_all(truth.events)
    assert await found_in(engine) == truth.expected()
    engine.random, before = None, len(engine.writes)
    keeper = workers.keeper()
    for event in truth.events:
        assert await event.tell(keeper) is not None
    assert len(engine.writes) == before


# ---- two calls, at every step ----------------------------------------------------------------------------------------
def _document(version: int, title: str = "Hours", **more: Any) -> Document:
    return Document(source=SOURCE, id="a", tenant="acme", title=title, body="", version=version, **more)


HISTORY = (
    Event("replace", _document(1), ("one", "two", "three", "four", "five")),
    Event("replace", _document(2), ("one", "changed")),
    Event("keep", _document(3, fields={"lang": "en"})),
    Event("replace", _document(4), ("one", "changed", "three", "six")),
    Event("keep", _document(5, "Prices")),
    Event("remove", _document(6, deleted=True)),
    Event("replace", _document(7), ("one", "seven", "eight")),
    Event("empty", _document(8, emptied=True)),
    Event("replace", _document(9), ("one", "nine")),
)


PAIRS = [(1, 0), (1, 2), (2, 1), (1, 3), (3, 5), (5, 3), (4, 5), (6, 7), (7, 6), (8, 7)]


def _after(number: int) -> dict[int, tuple[str, str, int]]:
    """Return what the index is to hold after the first events of the history."""
    title, texts = "", tuple[str, ...]()
    for event in HISTORY[:number]:
        title = event.document.title
        texts = texts if event.kind == "keep" else event.texts
    return {n: (title, text, HISTORY[number - 1].document.version) for n, text in enumerate(texts)}


async def _tell(engine: Engine, events: Sequence[Event]) -> None:
    """Tell events, one after the other, until each is done."""
    left = list(events)
    for _ in HISTORY:
        left = [event for event in left if await event.tell(keeper_on(engine)) is None]
    assert not left


@pytest.mark.virtual
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("first,second", PAIRS)
async def test_another_call_may_come_at_every_step(first: int, second: int, dies: bool) -> None:
    """Before each single operation of a call another one is carried out whole; the first goes on after it, or its
    process dies there and it is told again: the newest state stands, whichever of the two is newer."""
    early, last = min(first, second), max(first, second)
    step, came = 1, True
    while came:
        engine = Engine()
        await _tell(engine, HISTORY[:early])
        came, unknown = await _meet(engine, HISTORY[first], HISTORY[second], step, dies=dies)
        await _tell(engine, [*unknown, *HISTORY[early + 1 : last]])
        found = {n: (one["title"], one["text"], one["version"]) for (_, n), one in (await found_in(engine)).items()}
        assert found == _after(last + 1), f"at step {step}"
        step += 1
    assert step > 2


async def _meet(engine: Engine, first: Event, second: Event, step: int, *, dies: bool) -> tuple[bool, list[Event]]:
    """Tell `second` before the given step of `first`; says whether there was such a step, and what to tell again."""
    keeper, there, on = keeper_on(engine), asyncio.Event(), asyncio.Event()
    engine.steps = 0

    async def at(number: int) -> None:
        if number == step:
            there.set()
            await on.wait()

    engine.at = at
    call = asyncio.create_task(first.tell(keeper))
    waiting = asyncio.create_task(there.wait())
    await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    came, engine.at = there.is_set(), None
    if came and dies:
        await kill(keeper, [call])
    unknown = [second] if await second.tell(keeper_on(engine)) is None else []
    on.set()
    if (came and dies) or await call is None:
        unknown.append(first)
    return came, unknown

"""Tests of pipeline/ops/index_rebuild.py with the index it is for: whatever happens when, nothing is missing."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.rebuild_world import ALIAS, TICKER, Client, World, found_in, handled, live_on

pytestmark = [pytest.mark.local, pytest.mark.virtual]

CHANGES = 8


async def _play(world: World, deaths: tuple[int, int]) -> None:
    """Let a source go on while two workers write, a reader searches, and the index is rebuilt."""
    random, truth = world.random, world.truth
    letting = asyncio.create_task(world.steps.let())
    begin = handled(live_on(Client(world.steps), world.before))
    for name in (TICKER, "", "", "", TICKER):
        truth.go_on(name)
        await world.settle(begin, len(truth.changes) - 1)
    first = random.randint(0, len(truth.changes))  # what is before it the topic has no more
    taken = list[int]()
    tasks = [asyncio.create_task(world.worker(taken, deaths[0])), asyncio.create_task(world.worker(taken, 0))]
    tasks.append(asyncio.create_task(world.reader()))
    rebuild = asyncio.create_task(world.rebuild(deaths[1], first))
    for _ in range(CHANGES):
        await asyncio.sleep(random.random() * 0.3)
        truth.go_on(random.choice([TICKER, ""]))
        taken.append(len(truth.changes) - 1)
    await rebuild
    world.done = True
    await asyncio.gather(*tasks)
    letting.cancel()


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), deaths=st.tuples(st.integers(0, 2), st.integers(0, 3)), other=st.booleans())
async def test_nothing_is_missing_and_no_search_is_empty_or_mixed(
    seed: int, deaths: tuple[int, int], other: bool
) -> None:
    """Writers, readers and a rebuild interleaved at every request, each killed anywhere and started again, by the same
    embedding model or another: each search is of one collection and never empty, and finds what was said to be there;
    in the end the live collection holds what the source holds."""
    world = World(Random(seed), "letters", "others" if other else "letters")
    await _play(world, deaths)
    assert world.report is not None
    assert (world.report.skipped, world.report.unknown) == ({}, 0)
    assert await found_in(world.steps.inner) == world.truth.expected()
    aliases = {one.alias_name: one.collection_name for one in (await world.steps.inner.get_aliases()).aliases}
    assert set(aliases) == {ALIAS}
    assert world.searches


async def test_what_only_the_topics_have_is_read_from_them() -> None:
    """While the stage stands still, the new collection comes to the end of the topics, ahead of the old one; what the
    topics no longer have comes from the old one."""
    world = World(Random(1), "letters", "letters")
    letting = asyncio.create_task(world.steps.let())
    begin = handled(live_on(Client(world.steps), world.before))
    for name in (TICKER, "a", "b", "c"):
        world.truth.go_on(name)
        await world.settle(begin, len(world.truth.changes) - 1)
    for name in (TICKER, "a", "d"):
        world.truth.go_on(name)
    await world.rebuild(0, first=4)
    letting.cancel()
    assert world.report is not None
    assert (world.report.copied, world.report.records) == (4, 3)
    assert await found_in(world.steps.inner) == world.truth.expected()

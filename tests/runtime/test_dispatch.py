"""Dispatch: feeds share the slots by weight, nobody starves, and no wake-up is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.record import Partition, Record
from pipeline.runtime.dispatch import Dispatch
from pipeline.runtime.window import limits_for
from pipeline.runtime.work import Feed, Item, Part
from tests.examples import at_most


class Bench:
    """Feeds of given weights, each with one partition, before a dispatch."""

    def __init__(self, *weights: int) -> None:
        self.feeds = [Feed(f"feed{number}", weight, limits_for(8)) for number, weight in enumerate(weights)]
        self.parts = [Part(Partition(feed.name, 0), feed, None) for feed in self.feeds]
        self.dispatch = Dispatch(self.feeds)
        self.taken: list[Item] = []

    def push(self, feed: int = 0, count: int = 1) -> None:
        for offset in range(count):
            part = self.parts[feed]
            self.dispatch.push(Item(Record(part.name.topic, 0, offset, None, b""), part))

    async def take(self, count: int) -> list[str]:
        return [(await self.dispatch.take()).part.feed.name for _ in range(count)]

    async def work(self) -> None:
        while True:
            self.taken.append(await self.dispatch.take())


@pytest.mark.virtual
async def test_a_feed_alone_has_all_slots_in_order() -> None:
    """One feed's items come out as they went in, and the window counts what is ready."""
    bench = Bench(1)
    bench.push(count=3)
    assert bench.feeds[0].window.ready == 3
    assert [(await bench.dispatch.take()).offset for _ in range(3)] == [0, 1, 2]
    assert bench.feeds[0].window.ready == 0


@pytest.mark.virtual
async def test_feeds_with_work_share_the_slots_by_weight() -> None:
    """Of 26 slots, weights of 8, 4 and 1 get 16, 8 and 2, spread out rather than in blocks."""
    bench = Bench(8, 4, 1)
    for feed in range(3):
        bench.push(feed, 100)
    order = await bench.take(26)
    assert Counter(order) == {"feed0": 16, "feed1": 8, "feed2": 2}
    assert Counter(order[:13]) == {"feed0": 8, "feed1": 4, "feed2": 1}
    assert order[:2] != ["feed0", "feed0"]


@pytest.mark.virtual
async def test_an_urgent_record_is_next_however_long_the_other_line_is() -> None:
    """An interactive record that arrives behind 10,000 batch records goes with the next slot or the one after."""
    bench = Bench(8, 1)
    bench.push(1, 10_000)
    await bench.take(500)
    bench.push(0)
    assert "feed0" in await bench.take(2)


@pytest.mark.virtual
@settings(max_examples=at_most(30))
@given(
    weights=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=30),
)
async def test_no_feed_with_work_waits_longer_than_its_share(
    weights: list[int], arrivals: list[tuple[int, int]]
) -> None:
    """For any weights and any history of arrivals, a feed with work gets a slot within two rounds of all weights."""
    bench = Bench(*weights)
    for feed, count in arrivals:
        bench.push(feed % len(weights), count)
        await bench.take(1)
    for feed in range(len(weights)):
        bench.push(feed, 200)
    order = await bench.take(2 * sum(weights))
    assert set(order) == {feed.name for feed in bench.feeds}


@pytest.mark.virtual
async def test_items_of_a_partition_that_has_gone_are_passed_over() -> None:
    """What was ready when its partition went is dropped when its turn comes."""
    bench = Bench(1)
    bench.push(count=3)
    bench.parts[0].alive = False
    bench.parts[0] = Part(Partition("feed0", 1), bench.feeds[0], None)
    bench.push()
    assert (await bench.dispatch.take()).part is bench.parts[0]
    assert bench.feeds[0].window.ready == 0


@pytest.mark.virtual
async def test_work_without_a_waiting_worker_asks_for_one() -> None:
    """`starved` is called for each arrival that finds nobody waiting, and not when somebody waits."""
    bench, calls = Bench(1), list[int]()
    bench.dispatch.starved = lambda: calls.append(1)
    bench.push()
    assert calls == [1]
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.take(2))
        await asyncio.sleep(1)
        bench.push()
    assert calls == [1]


@pytest.mark.virtual
async def test_after_close_nothing_is_handed_out() -> None:
    """Ready items stay where they are, later ones too, and nobody is asked for."""
    bench, calls = Bench(1), list[int]()
    worker = asyncio.create_task(bench.work())
    await asyncio.sleep(1)
    bench.push()
    bench.dispatch.close()
    bench.dispatch.starved = lambda: calls.append(1)
    bench.push(count=5)
    await asyncio.sleep(1)
    assert bench.taken == []
    assert bench.feeds[0].window.ready == 0
    worker.cancel()
    await asyncio.wait([worker])
    assert calls == []


@pytest.mark.virtual
async def test_a_wake_up_is_handed_on_by_a_worker_that_dies() -> None:
    """A worker cancelled between its wake-up and its turn leaves the item to another one."""
    bench = Bench(1)
    workers = [asyncio.create_task(bench.work()) for _ in range(2)]
    await asyncio.sleep(1)
    bench.push()
    workers[0].cancel()
    await asyncio.sleep(1)
    assert len(bench.taken) == 1
    workers[1].cancel()
    await asyncio.wait(workers)


@pytest.mark.virtual
@settings(max_examples=at_most(30))
@given(st.data())
async def test_no_wake_up_is_lost_whoever_dies_when(data: st.DataObject) -> None:
    """For any order of arrivals, deaths and turns of the loop, one worker left alive is enough to take everything."""
    bench = Bench(4, 1)
    workers = [asyncio.create_task(bench.work()) for _ in range(5)]
    pushed = 0
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["push", "push", "cancel", "turn"])):
            case "push":
                pushed += 1
                bench.push(data.draw(st.integers(0, 1)))
            case "cancel" if len(workers) > 1:
                workers.pop(data.draw(st.integers(0, len(workers) - 1))).cancel()
            case _:
                await asyncio.sleep(0)
    await asyncio.sleep(1)
    assert len(bench.taken) == pushed
    for worker in workers:
        worker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*workers)

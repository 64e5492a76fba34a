"""Clocks that jump, and headers and timestamps that no honest clock has written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.broker.memory import MemoryBroker
from pipeline.core import headers as h
from pipeline.core.errors import Defer, Retry
from pipeline.core.record import Partition, Record
from pipeline.core.retry import RetryPolicy
from pipeline.devkit.clock import EPOCH, VirtualLoop, wall
from pipeline.runtime.waiting import LOOK_SECONDS
from tests.runtime.world import Run, Script, World

HOUR = 3_600.0
YEAR = 365 * 24 * HOUR
TIER = "t.work.retry.10s"


def loop() -> VirtualLoop:
    """Return the running virtual loop."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def began(run: Run, text: str) -> list[float]:
    """When the tries of `text` began, by the honest clock: seconds since the start, whatever the wall says."""
    return [honest for name, honest in zip(run.handler.texts, run.handler.honest, strict=True) if name == text]  # type: ignore[attr-defined]  # of Timed


class Timed(Script):
    """A script that also keeps the honest times of its tries, and how often the runner's loop has turned."""

    def __init__(self, **answers: list[Any]) -> None:
        """Answer as told."""
        super().__init__(**answers)
        self.honest: list[float] = []

    async def __call__(self, event: object, ctx: object, /) -> object:  # type: ignore[override]  # passed on as it is
        """Note the time."""
        self.honest.append(loop().time())
        return await super().__call__(event, ctx)  # type: ignore[arg-type]  # passed on as it is


# ------------------------------------------------------------------------------------------------ jumps
@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
@pytest.mark.parametrize("jump", [-50 * YEAR, -2 * HOUR, 2 * HOUR])
async def test_a_clock_that_jumps_and_comes_back(jump: float) -> None:
    """What waits in place, in its tier and behind its key is not early, and goes on within a minute of the return."""
    world = await World.make(partitions=3)
    run = await world.start(
        Timed(a=[Retry("later")], b=[Defer("later", until=EPOCH + 20)], c=[Retry("soon")]),
        World.stage(retry=RetryPolicy((10.0,))),
    )
    for partition, text in enumerate("abc"):
        world.put(text, key=text.encode(), partition=partition)
    await asyncio.sleep(5)
    loop().skew = jump
    await asyncio.sleep(120)
    loop().skew = 0
    await world.until(lambda: len(world.records("t.out")) == 3, seconds=LOOK_SECONDS + 5)
    await world.stop()
    assert [began(run, text)[1] >= wait for text, wait in (("a", 10), ("b", 20), ("c", 10))] == [True] * 3
    assert world.dead() == []


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
@settings(max_examples=5)
@given(jumps=st.lists(st.tuples(st.floats(1, 300), st.floats(-3 * HOUR, 3 * HOUR)), min_size=1, max_size=5))
async def test_whatever_the_clock_does_all_is_settled(jumps: list[tuple[float, float]]) -> None:
    """For any jumps: every record comes to its end, not much later than the jumps were long; nothing spins."""
    world = await World.make()
    texts = [f"r{number}" for number in range(6)]
    run = await world.start(Timed(**{text: [Retry("later"), Retry("once more")] for text in texts}))
    for text in texts:
        world.put(text, key=text.encode())
    for pause, skew in jumps:
        await asyncio.sleep(pause)
        loop().skew = skew
    await asyncio.sleep(60)
    loop().skew = 0
    longest = max(abs(skew) for _, skew in jumps)
    await world.until(lambda: len(world.records("t.out")) == len(texts), seconds=2 * longest + 3_000)
    commits = len(run.consumer.commits)
    await world.stop()
    assert len(run.handler.calls) == 3 * len(texts)
    assert commits < 200


# ------------------------------------------------------------------------------------------------ bad input
class Misdated(MemoryBroker):
    """A broker whose records all have one timestamp."""

    def __init__(self, clock: Callable[[], float], timestamp: int) -> None:
        """Date all records `timestamp`."""
        super().__init__(clock)
        self._timestamp = timestamp

    def read(self, name: Partition, offset: int, limit: int) -> Sequence[Record]:
        """Read, and misdate."""
        return [replace(record, timestamp_ms=self._timestamp) for record in super().read(name, offset, limit)]


HUGE = "9" * 400
JUNK = ["-5", HUGE, "12.5", "soon", "", "0x10", "\u0664".encode().decode("latin-1")]


@pytest.mark.virtual
@pytest.mark.parametrize("name", [h.ATTEMPTS, h.DEFERRALS, h.TIMEOUTS])
async def test_counts_that_are_none(name: str) -> None:
    """A copy whose bookkeeping is negative, huge or no number is handled all the same; a huge count is a last try."""
    world = await World.make()
    await world.create(TIER)
    run = await world.start(Script(**{junk: [Retry("no")] for junk in JUNK}))
    for junk in JUNK:
        world.put(junk, key=junk.encode(), topic=TIER, headers=((name, junk.encode("latin-1")),))
    await world.until(lambda: len(world.records("t.out")) + len(world.dead()) == len(JUNK))
    await world.stop()
    last = {HUGE} if name == h.ATTEMPTS else set()
    assert {junk for junk in JUNK if run.handler.texts.count(junk) == 1} == last
    assert len(world.dead()) == len(last)


@pytest.mark.virtual
async def test_a_not_before_that_is_no_time() -> None:
    """It is as if there were none: the copy is handled when its tier's delay is over."""
    world = await World.make()
    await world.create(TIER)
    run = await world.start(Script())
    junks = [junk for junk in JUNK if junk != HUGE]
    for junk in junks:
        world.put(junk, key=junk.encode(), topic=TIER, headers=((h.NOT_BEFORE, junk.encode("latin-1")),))
    await world.until(lambda: len(world.records("t.out")) == len(junks), seconds=60)
    await world.stop()
    assert all(EPOCH + 10 <= call.began < EPOCH + 12 for call in run.handler.calls)


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_not_before_a_year_ahead() -> None:
    """It is waited for in the longest tier, one copy every ten minutes, and holds up nobody."""
    world = await World.make()
    await world.create(TIER)
    run = await world.start(Script())
    world.put("a", topic=TIER, headers={h.NOT_BEFORE: str(int((EPOCH + YEAR) * 1000))})
    world.put("b", topic=TIER)
    world.put("c")
    await asyncio.sleep(3 * HOUR)
    assert sorted(run.handler.texts) == ["b", "c"]
    assert 15 <= world.tiers()["10m"] <= 19
    assert world.at(TIER) == 2
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("timestamp", [-1, 0, int((EPOCH + YEAR) * 1000), 2**62])
@pytest.mark.parametrize("topic", ["t.in", TIER])
async def test_timestamps_that_no_clock_has_written(timestamp: int, topic: str) -> None:
    """A record without a timestamp, or from the future, is handled; on a tier after its delay, counted from now."""
    world = await World.make(broker=Misdated(wall, timestamp))
    await world.create(TIER)
    run = await world.start(Script())
    world.put("a", topic=topic)
    await world.until(lambda: world.records("t.out"), seconds=60)
    await world.stop()
    (when,) = run.handler.times("a")
    assert EPOCH + (10 if topic == TIER else 0) <= when < EPOCH + 12


@pytest.mark.virtual
async def test_a_retry_topic_with_fewer_partitions_than_its_source() -> None:
    """Its source's partitions beyond wait, and say so; nothing of them is failed, and the others go on."""
    world = await World.make(partitions=2)
    await world.create(TIER, partitions=1)

    async def counts(topics: object) -> dict[str, int]:
        return {str(topic): 1 if topic == TIER else 2 for topic in topics}  # type: ignore[attr-defined]  # a sequence

    run = await world.start(Script(a=[Retry("later")]), counts=counts)
    world.put("a", partition=0)
    world.put("b", partition=1)
    await world.until(lambda: world.records("t.out"))
    assert run.handler.texts == ["a", "a"]
    assert world.at("t.in", 1) in (None, 0)
    assert f"wait for their counterparts: {TIER} has 1" in run.runner.status()[2]
    assert run.consumer.paused("t.in", 1)
    await world.stop()
    assert (world.dead(), world.failures()) == ([], [])

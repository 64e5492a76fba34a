"""Owners of handed-over calls: waited for while they are there, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from pipeline.core.errors import Retry
from pipeline.core.offset_map import Progress, mark, spell
from pipeline.core.record import Commit, Partition
from pipeline.devkit.clock import EPOCH, wall
from pipeline.runtime import follow
from pipeline.runtime.owners import LOOK_SECONDS, Owners
from tests.runtime.following import calls, costly, progress
from tests.runtime.test_handover_calls import followed, two
from tests.runtime.world import Script, World

pytestmark = pytest.mark.usefixtures("unhurried")

SESSION = 10.0


async def test_who_is_gone() -> None:
    """Whoever is not among the members, if we are; where we are not, or nobody can say, nobody is."""
    there: list[str] = ["a", "me"]

    async def members(_: str) -> Collection[str]:
        return there

    known = Owners("g", lambda: "me", members)
    marks = {mark("a"), mark("b"), mark("me")}
    assert (known.me(), await known.gone(marks), await known.gone(())) == (mark("me"), {mark("b")}, set())
    there.remove("me")
    assert await known.gone(marks) == set()
    nameless = Owners("g", str, members)
    assert (nameless.me(), await nameless.gone(marks)) == (None, set())
    assert await Owners("g", lambda: "me", None).gone(marks) == set()


@pytest.mark.virtual
async def test_a_killed_owner_is_waited_for_until_its_group_misses_it() -> None:
    """The call was to take up to a minute: the next owner makes it as soon as the session of the dead one is over."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(50.0), Script(), timeout=600)
    assert set(progress(world, "t.in", 1).owners) == {0}
    await first.kill()
    killed = wall()
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert second.handler.texts == ["a", "b"]
    assert killed + SESSION <= second.handler.calls[0].began < killed + SESSION + LOOK_SECONDS + 1
    await world.stop()


@pytest.mark.virtual
async def test_an_answer_that_a_killed_owner_has_written_is_used() -> None:
    """It was written right before the kill, and the reader is slow: it is read before anything is paid for."""
    world = await World.make(partitions=2)
    first, second, reader = await followed(world, 8.0)
    reader.away = True
    await world.until(world.texts)
    await first.kill()
    await world.settle(60)
    assert world.at("t.in", 1) == 0
    reader.away = False
    await world.until(lambda: world.at("t.in", 1) == 1)
    assert calls(first.handler, second.handler) == {"a": 1}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_living_owner_is_waited_for_however_long_its_call_takes() -> None:
    """It is a member of the group all the time; nobody pays for what it is about to answer."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(200.0), Script(), timeout=300)
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts) == (["a"], ["b"])
    await world.stop()


@pytest.mark.virtual
async def test_an_owner_that_has_left_is_not_waited_for() -> None:
    """It was stopped and its drain is over, so its call was cut: the next owner makes it at once."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(500.0), Script(), timeout=600, drain_seconds=20.0)
    await first.stop()
    left = wall()
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (calls(first.handler, second.handler), world.texts()) == ({"a": 2, "b": 1}, ["a!", "b!"])
    assert left - 1 <= second.handler.calls[0].began < left + LOOK_SECONDS + 1
    await world.stop()


@pytest.mark.virtual
async def test_who_leaves_has_its_handed_over_answers_acknowledged_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer on its way holds up a stop: once its owner has left, the next one would not wait for it."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(5.0), Script(), timeout=600)
    send = first.producer.send
    monkeypatch.setattr(first.producer, "send", lambda *sent: asyncio.get_running_loop().call_later(8.0, send, *sent))
    await first.stop()
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (calls(first.handler, second.handler), world.texts()) == ({"a": 1, "b": 1}, ["a!", "b!"])
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("answer", [None, Retry("cut off")])
async def test_an_owner_that_stood_still_only_overlaps(
    answer: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put out of the group, it has been given up by the next owner; it may still write its answer, and nothing else."""
    world = await World.make(partitions=2)
    goes_on = asyncio.Event()

    async def when_it_goes_on() -> object:
        await goes_on.wait()
        return answer

    one, other = await two(world, Script(a=[when_it_goes_on]), Script(), timeout=600, patience=5.0)
    one.consumer.stall = 30.0
    await world.until(lambda: other.handler.done == ["a", "b"])
    follower = one.runner._follower
    assert follower is not None
    monkeypatch.setattr(follower, "_turned", asyncio.get_running_loop().time() - 30.0)
    await world.settle()
    goes_on.set()
    await world.settle(60)
    assert calls(one.handler, other.handler) == {"a": 2, "b": 1}
    assert (sorted(world.texts()), sum(world.tiers().values())) == (["a!", *["a!"][: answer is None], "b!"], 0)
    await world.stop()


@pytest.mark.virtual
async def test_the_owners_of_a_chain_are_told_apart() -> None:
    """A hands a call to B, and B that and one of its own to D; B dies: D makes B's call, and still waits for A's."""
    world, last = await World.make(partitions=4), Partition("t.in", 3)
    runs = []
    for name, seconds in (("a", 100.0), ("b", 100.0), ("", 0.0), ("", 0.0)):
        run = await world.start(Script(seconds), costly(timeout=600), tiers=False)
        await world.settle()
        runs.append(run)
        if name:
            assert last in run.consumer.owned
            world.put(name, key=name.encode(), partition=3)
            await world.until(lambda: world.runs[-1].handler.texts)
    assert last in runs[3].consumer.owned
    assert len(set(progress(world, "t.in", 3).owners.values())) == 2
    await runs[1].kill()
    await world.until(lambda: world.texts() == ["b!"], seconds=SESSION + 5)
    await world.until(lambda: world.at("t.in", 3) == 2)
    assert calls(*(run.handler for run in runs)) == {"a": 1, "b": 2}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("until", [2**62, int(EPOCH) + 10**6])
async def test_nobody_is_waited_for_for_ever(until: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that name calls of a year are nonsense: there is a longest time for which anybody is believed."""
    monkeypatch.setattr(follow, "LONGEST_CALL", 200.0)
    world = await World.make()
    world.put("a")
    told = Commit(0, spell(0, Progress(handed=(0,), until=until)))
    world.broker.group("t.work").committed[Partition("t.in", 0)] = told
    run = await world.start(Script(), costly())
    await world.until(world.texts)
    assert 200 <= run.handler.calls[0].began - EPOCH < 205
    await world.stop()

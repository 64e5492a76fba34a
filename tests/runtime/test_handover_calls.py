"""Costly calls that run when their partition leaves: the old owner finishes them, the new one waits (section 6.4)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Any

import pytest

from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.offset_map import Progress, spell
from pipeline.core.record import Commit, Partition
from pipeline.core.retry import RetryPolicy
from pipeline.devkit.clock import EPOCH, wall
from pipeline.runtime.owners import Members
from tests.runtime.following import Reader, calls, costly, progress, uncommitted
from tests.runtime.world import Run, Script, World

SECOND = Partition("t.in", 1)


KIT = {"members", "drain_seconds", "patience"}


async def two(world: World, first: Script, second: Script, **given: Any) -> tuple[Run, Run]:
    """Let a worker begin with `a` and `b` of partition 1, and then lose that partition to another one.

    What is `given` is for the stage, or for the kit of both.
    """
    kit = {name: value for name, value in given.items() if name in KIT}
    stage = costly(**{name: value for name, value in given.items() if name not in KIT})
    one = await world.start(first, stage, tiers=False, **kit)
    await world.settle()
    world.put("a", "b", key=b"1", partition=1)
    await world.until(lambda: one.handler.texts == ["a"])
    other = await world.start(second, stage, tiers=False, **kit)
    await world.until(lambda: SECOND in other.consumer.owned)
    return one, other


async def followed(world: World, seconds: float) -> tuple[Run, Run, Reader]:
    """Let a worker lose partition 1 in a call of so many seconds; returns it, the new owner and that one's reader."""
    first = await world.start(Script(seconds), costly(), tiers=False)
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await world.until(lambda: first.handler.texts)
    reader = Reader(world.broker)
    second = await world.start(Script(), costly(), tiers=False, reader=reader)
    await world.until(lambda: SECOND in second.consumer.owned)
    await world.settle()
    return first, second, reader


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_call_that_runs_is_finished_and_its_new_owner_waits_for_the_answer() -> None:
    """It is named in the metadata of the revocation's commit; the next of its key waits too, and is paid by the new."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(20.0), Script())
    assert (progress(world, "t.in", 1).handed, world.at("t.in", 1)) == ((0,), 0)
    assert progress(world, "t.in", 1).until == math.ceil(first.handler.calls[0].began + 60 + 1)
    await world.settle(10)
    assert second.handler.texts == []
    await world.until(lambda: world.at("t.in", 1) == 2, seconds=30)
    assert (first.handler.texts, second.handler.texts, world.texts()) == (["a"], ["b"], ["a!", "b!"])
    assert first.consumer.commits == [] or all(SECOND not in offsets for _, offsets in first.consumer.commits)
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("error", [Retry("later"), Defer("later", until=EPOCH + 40)])
async def test_a_call_that_fails_after_the_handover_leaves_a_copy(error: Exception) -> None:
    """The new owner is not to try before the copy is due: the attempt counts, and the deferral is kept."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(20.0, a=[error]), Script())
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts) == (["a"], ["b"])
    assert (world.tiers()["10s"], world.texts()) == (1, ["b!"])
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("error", [Fail("refused"), Reject("no")])
async def test_a_call_that_ends_its_job_after_the_handover_says_so(error: Exception) -> None:
    """A failure event or a dead letter is written by the old owner, once."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(20.0, a=[error]), Script())
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts) == (["a"], ["b"])
    assert (len(world.failures()), len(world.dead())) == (1, int(isinstance(error, Reject)))
    await world.stop()


async def nobody(_: str) -> Collection[str]:
    """A coordinator that knows of no member."""
    return ()


async def strangers(_: str) -> Collection[str]:
    """A coordinator that knows others, and not the one who asks."""
    return ("someone", "else")


async def away(_: str) -> Collection[str]:
    """A coordinator that cannot be asked."""
    raise ConnectionError("no coordinator")


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("members", [None, nobody, strangers, away])
async def test_an_old_owner_that_dies_is_waited_for_no_longer_than_it_said(members: Members | None) -> None:
    """Past its time the new owner calls, who cannot know that it is gone: never before, and not long after."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(50.0), Script(), members=members)
    until = progress(world, "t.in", 1).until
    await first.kill()
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert second.handler.texts == ["a", "b"]
    assert until <= second.handler.calls[0].began < until + 2
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_past_the_time_the_log_is_read_to_its_end_before_a_call() -> None:
    """The answer is there at the last moment and the reader is slow: it is found all the same."""
    world = await World.make(partitions=2)
    first, second, reader = await followed(world, 58.0)
    reader.lag = 30.0
    await world.until(world.texts)
    await world.until(lambda: world.at("t.in", 1) == 1)
    assert calls(first.handler, second.handler) == {"a": 1}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_the_word_of_a_handover_is_carried_on() -> None:
    """The new owner goes too, or dies, before the answer: the third one still waits for the first."""
    world = await World.make(partitions=2)
    first = await world.start(Script(40.0), costly(), tiers=False)
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await world.until(lambda: first.handler.texts)
    second = await world.start(Script(), costly(), tiers=False)
    await world.until(lambda: SECOND in second.consumer.owned)
    world.put("b", key=b"2", partition=1)
    await world.until(lambda: "b!" in world.texts())
    await world.settle()
    told = progress(world, "t.in", 1)
    assert (told.handed, told.settled) == ((0,), (range(1, 2),))
    await second.kill()
    third = await world.start(Script(), costly(), tiers=False)
    await world.until(lambda: world.at("t.in", 1) == 2)
    await world.settle()
    assert calls(first.handler, second.handler, third.handler) == {"a": 1, "b": 1}
    assert sorted(world.texts()) == ["a!", "b!"]
    assert progress(world, "t.in", 1).handed == ()
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_partition_that_comes_back_waits_for_its_own_call() -> None:
    """It leaves and returns while the call runs: the answer settles the record, without a second call."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(30.0), Script())
    await second.stop()
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts) == (["a", "b"], [])
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_lost_calls_still_write_their_answers() -> None:
    """Nothing is committed for what was lost, but an answer is paid for: it is written, and the next owner uses it."""
    world = await World.make()
    first = await world.start(Script(30.0), costly(), patience=2.0)
    await world.settle()
    world.put("a", "b")
    await world.settle()
    first.consumer.stall = 5.0
    await world.settle(20)
    assert first.consumer.owned
    await world.until(lambda: world.at() == 2)
    assert world.texts()[0] == "a!"
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_lost_call_that_fails_leaves_no_copy() -> None:
    """The next owner tries for itself; a copy of a call that nobody waits for would be one try too many."""
    world = await World.make()
    first = await world.start(Script(5.0, a=[Retry("later")]), costly(), patience=2.0)
    await world.settle()
    world.put("a")
    await world.settle()
    first.consumer.stall = 3.0
    second = await world.start(Script(50.0), costly())
    await world.until(lambda: world.at() == 1)
    assert (world.tiers()["10s"], world.texts(), second.handler.texts) == (0, ["a!"], ["a"])
    await world.stop()


@pytest.mark.virtual
async def test_an_answer_in_flight_at_a_revocation_is_waited_for() -> None:
    """Sent and not acknowledged when the partition goes: the new owner looks for it before it pays."""
    world = await World.make(partitions=2)
    first = await world.start(Script(), costly(), tiers=False)
    first.producer.delay = 3.0
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await world.until(world.texts)
    second = await world.start(Script(), costly(), tiers=False)
    await world.until(lambda: world.at("t.in", 1) == 1)
    assert (calls(first.handler, second.handler), world.texts()) == ({"a": 1}, ["a!"])
    await world.stop()


@pytest.mark.virtual
async def test_an_answer_that_waits_to_be_encoded_is_handed_over_too() -> None:
    """The registry is away and the partition goes: the old owner writes the answer when it can."""
    world = await World.make(partitions=2)
    away = [Defer("registry", until=EPOCH + 6)]
    world.codec.encoding = lambda _: (_ for _ in ()).throw(away.pop()) if away else None
    first, second = await two(world, Script(), Script())
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (calls(first.handler, second.handler), world.texts()) == ({"a": 1, "b": 1}, ["a!", "b!"])
    assert first.handler.texts[0] == "a"
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_in_place_retries_are_left_to_the_new_owner() -> None:
    """A copy would give up the record's place: nothing is written, and the new owner tries when the time is over."""
    world = await World.make(partitions=2)
    first, second = await two(
        world, Script(20.0, a=[Retry("later")]), Script(), retry=RetryPolicy((1.0,), in_place=True)
    )
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts) == (["a"], ["a", "b"])
    assert (sum(world.tiers().values()), world.texts()) == (0, ["a!", "b!"])
    await world.stop()


@pytest.mark.virtual
async def test_what_waits_in_place_is_dropped_and_not_handed_over() -> None:
    """A deferred record does not run: its new owner takes it at once."""
    world = await World.make(partitions=2)
    first, second = await two(world, Script(a=[Defer("later", until=EPOCH + 25)]), Script())
    await world.until(lambda: world.at("t.in", 1) == 2, seconds=5)
    assert (first.handler.texts, second.handler.texts) == (["a"], ["a", "b"])
    await world.stop()


@pytest.mark.virtual
async def test_a_drain_finishes_its_calls_and_hands_over_none() -> None:
    """At a stop what runs is finished within the drain; what is cut then is nobody's to wait for."""
    world = await World.make()
    first = await world.start(Script(lambda text: 100.0 if text == "b" else 10.0), costly(), drain_seconds=30.0)
    world.put("a", key=b"1")
    world.put("b", key=b"2")
    await world.until(lambda: len(first.handler.texts) == 2)
    await first.stop()
    assert (world.texts(), progress(world).handed) == (["a!"], ())
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 2, seconds=5)
    assert second.handler.texts == ["b"]
    await world.stop()


@pytest.mark.virtual
async def test_a_handover_that_is_long_over_delays_nothing() -> None:
    """Names of calls whose time has passed are no reason to wait."""
    world = await World.make()
    world.put("a")
    world.broker.group("t.work").committed[Partition("t.in", 0)] = Commit(
        0, spell(0, Progress(handed=(0,), until=int(wall()) - 100))
    )
    run = await uncommitted(world, Script())
    await world.until(world.texts, seconds=3)
    assert run.handler.texts == ["a"]
    await run.kill()


@pytest.mark.virtual
async def test_revocation_is_quick() -> None:
    """A hundred running calls are handed over without waiting for any of them."""
    world = await World.make(partitions=2)
    first = await world.start(Script(50.0), costly(concurrency=128), tiers=False)
    await world.settle()
    world.put(*map(str, range(100)), key=None, partition=1)
    await world.until(lambda: len(first.handler.texts) == 100)
    second = await world.start(Script(), costly(), tiers=False)
    before = asyncio.get_running_loop().time()
    await world.until(lambda: SECOND in second.consumer.owned)
    assert asyncio.get_running_loop().time() - before < 1
    await world.until(lambda: world.at("t.in", 1) == 100)
    assert (len(first.handler.texts), second.handler.texts) == (100, [])
    await world.stop()

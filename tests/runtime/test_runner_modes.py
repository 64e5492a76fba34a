"""Delivery at most once, no order at all, and retries in place: what each mode keeps and what it gives up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.record import Partition
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage
from pipeline.devkit.clock import EPOCH, wall
from tests.runtime.world import Script, World

IN = Partition("t.in", 0)


def once(**policy: Any) -> Stage:
    """Declare the usual stage at most once."""
    return World.stage(delivery="at most once", **policy)


# ------------------------------------------------------------------ at most once


@pytest.mark.virtual
async def test_at_most_once_commits_before_it_handles() -> None:
    """No handler begins before the broker has acknowledged the commit of its record."""
    world = await World.make()
    seen: list[int | None] = []

    async def look() -> None:
        seen.append(world.at())

    run = await world.start(Script(a=[look], b=[look]), once())
    world.put("a", "b")
    await world.until(lambda: len(run.handler.calls) == 2)
    assert seen == [2, 2]
    await world.stop()
    assert world.texts() == ["a!", "b!"]


@pytest.mark.virtual
async def test_at_most_once_never_repeats_after_a_kill() -> None:
    """What a killed worker had begun is lost and nothing is handled twice; what it had not committed is handled."""
    world = await World.make()
    run = await world.start(Script(100.0), once(concurrency=4))
    world.put("a", "b", key=None)
    await world.until(lambda: len(run.handler.calls) == 2)
    run.consumer.loses_commits = True
    world.put("c", key=None)
    await world.settle()
    assert run.handler.texts == ["a", "b"]
    await run.kill()
    again = await world.start(Script(), once())
    await world.until(lambda: world.at() == 3)
    await world.until(lambda: again.handler.done)
    await world.stop()
    assert again.handler.texts == ["c"]


@pytest.mark.virtual
async def test_at_most_once_finishes_what_it_committed() -> None:
    """A stop and a rebalance lose nothing: what is committed is handled, by whom it was committed."""
    world = await World.make(partitions=2)
    run = await world.start(Script(1.0), once(concurrency=1), tiers=False)
    world.put("a", "b", "c", key=b"k")
    world.put("d", "e", "f", key=b"l", partition=1)
    await world.until(lambda: len(run.handler.calls) == 1)
    other = await world.start(Script(1.0), once(concurrency=1), tiers=False)
    await world.settle(1.5)
    await run.stop()
    await world.settle(5)
    await world.stop()
    assert sorted(run.handler.done + other.handler.done) == ["a", "b", "c", "d", "e", "f"]
    assert sorted(world.texts()) == [f"{text}!" for text in "abcdef"]


@pytest.mark.virtual
async def test_at_most_once_gives_back_what_it_has_not_begun() -> None:
    """A partition that leaves before its early commit was acknowledged is handled by its next owner."""
    world = await World.make()
    run = await world.start(Script(), once())
    await world.settle()
    run.consumer.loses_commits = True
    world.put("a", "b")
    await world.settle()
    assert run.handler.calls == []
    await run.stop()
    again = await world.start(Script(), once())
    await world.until(lambda: len(again.handler.done) == 2)
    await world.stop()
    assert world.texts() == ["a!", "b!"]


@pytest.mark.virtual
async def test_at_most_once_has_retries_and_dead_letters_too() -> None:
    """A try that fails is no crash: its record goes on to a tier, and to the dead letters at last."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later"), None], b=[Reject("never")]), once())
    world.put("a", "b", key=None)
    await world.until(lambda: world.texts() == ["a!"])
    assert run.handler.texts == ["a", "b", "a"]
    assert len(world.dead()) == 1
    await world.stop()


# ------------------------------------------------------------------ no order


@pytest.mark.virtual
async def test_without_order_one_key_fills_all_slots() -> None:
    """Records of one key are handled side by side, and none waits for another."""
    world = await World.make()
    run = await world.start(Script(1.0), World.stage(order="none", concurrency=8))
    world.put(*map(str, range(16)), key=b"same")
    await world.until(lambda: world.at() == 16)
    assert run.handler.most == 8
    await world.stop()


# ------------------------------------------------------------------ retry in place

PLACE = RetryPolicy((10, 60), in_place=True)


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_retry_in_place_keeps_the_order_of_a_key() -> None:
    """The key waits for its record through failures and long deferrals; all other keys go on; no tier sees a copy."""
    world = await World.make()
    start = wall()
    run = await world.start(Script(a=[Retry("one"), Defer("two", until=start + 500), None]), World.stage(retry=PLACE))
    world.put("a", "b", "c", key=b"first")
    world.put("x", "y", key=b"second")
    await world.until(lambda: run.handler.done == ["x", "y"], 5)
    await world.until(lambda: len(run.handler.done) == 5)
    assert run.handler.done == ["x", "y", "a", "b", "c"]
    first, second, third = run.handler.times("a")
    assert second - first >= 10
    assert third - start >= 500
    assert not any(world.tiers().values())
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_retry_in_place_ends_in_the_dead_letters() -> None:
    """After the last try the record is a dead letter, with its tries told, and its key goes on."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("no")] * 3), World.stage(retry=PLACE))
    world.put("a", "b")
    await world.until(lambda: run.handler.done == ["b"])
    await world.settle()
    assert len(world.dead()) == 1
    assert len(run.handler.times("a")) == 3
    await world.stop()


@pytest.mark.virtual
async def test_retry_in_place_is_cheap_for_the_others() -> None:
    """While hundreds of keys wait in place their neighbours are settled and stay so after a kill: the map has them."""
    world = await World.make()
    handler = Script(**{f"bad{number}": [Retry("no")] for number in range(300)})
    run = await world.start(handler, World.stage(retry=PLACE, concurrency=64))
    for number in range(300):
        world.put(f"bad{number}", key=b"bad%d" % number)
        world.put(f"good{number}", key=b"good%d" % number)
    await world.until(lambda: len(run.handler.done) == 300, 9)
    await asyncio.sleep(0.3)
    await run.kill()
    again = await world.start(Script(), World.stage(retry=PLACE))
    await world.until(lambda: world.at() == 600)
    assert sorted(again.handler.texts) == sorted(f"bad{number}" for number in range(300))
    await world.stop()


def test_in_place_without_an_order_is_refused() -> None:
    """There is nothing that retries in place could keep."""
    with pytest.raises(ValueError, match="without an order"):
        World.stage(order="none", retry=PLACE)


@pytest.mark.virtual
async def test_at_most_once_a_stop_loses_nothing_that_waits_in_a_tier() -> None:
    """What is not due is not committed, so whoever comes next handles it; what was handled is not handled again."""
    world = await World.make()
    stage = World.stage(delivery="at most once")
    first = await world.start(Script(a=[Retry("later")]), stage)
    world.put("a", "b")
    await world.until(lambda: world.tiers()["10s"] == 1)
    await world.settle(3)
    await first.stop()
    assert not world.at("t.work.retry.10s")
    second = await world.start(Script(), stage)
    await world.until(lambda: len(world.texts()) == 2)
    await world.settle(20)
    assert (first.handler.texts, second.handler.texts, sorted(world.texts())) == (["a", "b"], ["a"], ["a!", "b!"])
    await world.stop()


@pytest.mark.virtual
async def test_at_most_once_a_rebalance_loses_nothing_that_waits_in_a_tier() -> None:
    """Its copies stand in several partitions of the tier, some of which move while their records wait."""
    world = await World.make(partitions=4)
    stage = World.stage(delivery="at most once")
    texts = [f"n{number}" for number in range(12)]
    first = await world.start(Script(**{text: [Retry("later")] for text in texts}), stage)
    for number, text in enumerate(texts):
        world.put(text, key=text.encode(), partition=number % 4)
    await world.until(lambda: world.tiers()["10s"] == len(texts))
    await world.settle(3)
    second = await world.start(Script(), stage)
    await world.until(lambda: len(world.texts()) == len(texts), seconds=60)
    await world.settle(20)
    assert sorted(first.handler.texts[len(texts) :] + second.handler.texts) == sorted(texts)
    assert second.handler.texts
    await world.stop()


@pytest.mark.virtual
async def test_at_most_once_what_moves_on_in_the_tiers_is_not_handled_twice() -> None:
    """The move to the next tier, too, comes after the commit: killed in between, the record is lost and not doubled."""
    world = await World.make()
    stage = World.stage(delivery="at most once")
    first = await world.start(Script(), stage)
    far = {h.NOT_BEFORE: str(int((EPOCH + 100) * 1000)), h.ORIGINAL: "t.in/0/0/1"}
    world.put("a", topic="t.work.retry.10s", headers=far)
    await world.until(lambda: world.tiers()["1m"] == 1)
    assert world.at("t.work.retry.10s") == 1
    await first.kill()
    second = await world.start(Script(), stage)
    await world.until(world.texts)
    await world.settle(120)
    assert (world.texts(), second.handler.texts) == (["a!"], ["a"])
    await world.stop()

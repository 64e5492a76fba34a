"""Partitions come and go: what is done is committed, what is stale is dropped, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Retry
from pipeline.core.record import Partition
from pipeline.devkit.clock import EPOCH
from pipeline.runtime.window import limits_for
from tests.examples import at_most
from tests.runtime.world import Run, Script, World, header, ids


def commits_of(run: Run, name: Partition) -> list[int]:
    """What a runner has ever asked to commit for a partition, in order."""
    return [offsets[name].offset for _, offsets in run.consumer.commits if name in offsets]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_revoked_partition_is_committed_as_far_as_it_came() -> None:
    """At the moment of the revocation, without waiting for the next commit; the new owner begins exactly there."""
    world = await World.make(partitions=2)
    first = await world.start(Script(lambda text: 100.0 if text == "slow" else 0.0), tiers=False)
    first.consumer.loses_commits = True
    await world.settle()
    world.put("done", "slow", key=None, partition=1)
    await asyncio.sleep(1)
    second = await world.start(Script(), tiers=False)
    await world.until(lambda: second.handler.calls)
    assert first.consumer.owned == {Partition("t.in", 0)}
    assert second.handler.texts == ["slow"]
    await world.until(lambda: world.at("t.in", 1) == 2)
    await world.stop()
    assert world.texts() == ["done!", "slow!"]


@pytest.mark.virtual
async def test_what_runs_for_a_partition_that_leaves_may_end_and_nothing_more_is_begun_for_it() -> None:
    """While its consumer can wait: the call that ends in time is settled, and its next owner begins behind it."""
    world = await World.make(partitions=2)
    first = await world.start(Script(0.1), World.stage(concurrency=1), tiers=False)
    await world.settle()
    world.put("a", "b", key=None, partition=1)
    await world.until(lambda: first.handler.texts)
    leaving = [Partition("t.in", 1)]
    assert first.consumer.rebalance.leaving(leaving)
    await world.until(lambda: not first.consumer.rebalance.leaving(leaving))
    second = await world.start(Script(), tiers=False)
    await world.until(lambda: world.at("t.in", 1) == 2)
    assert (first.handler.texts, second.handler.texts, world.texts()) == (["a"], ["b"], ["a!", "b!"])
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("policy", [{"costly": True}, {"delivery": "at most once"}])
async def test_nothing_is_waited_for_that_goes_on_without_its_partition(policy: dict[str, Any]) -> None:
    """Costly calls are handed over; what was committed before it was begun is finished in any case."""
    world = await World.make()
    first = await world.start(Script(100.0), World.stage(**policy), tiers=False, reader=world.broker.reader())
    world.put("a")
    await world.until(lambda: first.handler.texts)
    assert not first.consumer.rebalance.leaving([Partition("t.in", 0)])
    await world.stop()


@pytest.mark.virtual
async def test_a_stale_completion_is_dropped_and_never_committed() -> None:
    """A handler that outlives its partition writes nothing and moves no offset, least of all backwards."""
    world = await World.make(partitions=2)
    first = await world.start(Script(5.0), tiers=False)
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await asyncio.sleep(1)
    second = await world.start(Script(1.0), tiers=False)
    world.put("b", "c", key=b"1", partition=1)
    await world.until(lambda: world.at("t.in", 1) == 3)
    await world.until(lambda: first.handler.done == ["a"])
    await world.settle()
    assert world.at("t.in", 1) == 3
    assert commits_of(first, Partition("t.in", 1)) == []
    await world.stop()
    assert world.texts() == ["a!", "b!", "c!"]
    assert second.handler.texts == ["a", "b", "c"]
    assert world.metric("window_records") == 0


@pytest.mark.virtual
@pytest.mark.parametrize("error", [Retry("later"), Defer("later", until=EPOCH + 9)])
async def test_a_stale_failure_is_dropped_too(error: Exception) -> None:
    """What a handler raises after its partition has gone makes no copy: the new owner tries for itself."""
    world = await World.make(partitions=2)
    await world.start(Script(5.0, a=[error]), tiers=False)
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await asyncio.sleep(1)
    await world.start(Script(), tiers=False)
    await world.until(lambda: world.at("t.in", 1) == 1)
    await asyncio.sleep(10)
    await world.stop()
    assert world.texts() == ["a!"]
    assert sum(world.tiers().values()) == 0


@pytest.mark.virtual
async def test_an_acknowledgement_that_comes_after_the_revocation_commits_nothing() -> None:
    """Written but not acknowledged when the partition went: the next owner repeats, under the same id."""
    world = await World.make(partitions=2)
    first = await world.start(Script(), tiers=False)
    first.producer.delay = 5.0
    await world.settle()
    world.put("a", key=b"1", partition=1)
    await world.until(lambda: world.records("t.out"))
    second = await world.start(Script(), tiers=False)
    await world.until(lambda: second.handler.calls)
    assert world.at("t.in", 1) is None
    await asyncio.sleep(10)
    await world.stop()
    assert world.texts() == ["a!", "a!"]
    assert len(set(ids(world.records("t.out")))) == 1
    assert commits_of(first, Partition("t.in", 1)) == []


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_lost_partition_is_never_committed() -> None:
    """A worker that stood still has lost everything: it commits nothing, drops what it had, and starts anew."""
    world = await World.make(partitions=1)
    first = await world.start(Script(3.0), tiers=False, patience=2.0)
    await world.settle()
    world.put("a", "b")
    await asyncio.sleep(1)
    first.consumer.stall = 10.0
    await asyncio.sleep(1)
    second = await world.start(Script(), tiers=False)
    await world.until(lambda: world.at() == 2)
    assert first.handler.done == ["a"]
    await asyncio.sleep(15)
    assert first.consumer.owned == set()
    assert commits_of(first, Partition("t.in", 0)) == []
    assert world.at() == 2
    await world.stop()
    # A worker that stands still cannot know: what it had begun, it writes. The ids are equal.
    assert set(world.texts()) == {"a!", "b!"}
    assert len(set(ids(world.records("t.out")))) == 2
    assert second.handler.texts == ["a", "b"]


@pytest.mark.virtual
async def test_a_worker_that_lost_everything_joins_again() -> None:
    """Alone in its group it gets its partitions back and begins where the group stands."""
    world = await World.make()
    run = await world.start(Script(), patience=2.0)
    world.put("a")
    await world.until(lambda: world.at() == 1)
    run.consumer.stall = 10.0
    await asyncio.sleep(12)
    world.put("b")
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert run.handler.texts == ["a", "b"]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_deferred_record_that_leaves_is_forgotten_here_and_deferred_there() -> None:
    """A record that waits in place goes with its partition; only the new owner tries it again."""
    world = await World.make(partitions=2)
    mine = World()
    first = await world.start(Script(a=[Defer("later", until=EPOCH + 20)]), tiers=False, observer=mine.observer)
    await world.settle()
    world.put("a", "b", key=b"1", partition=1)
    await asyncio.sleep(3)
    assert mine.metric("waiting_records") == 1
    second = await world.start(Script(a=[Defer("later", until=EPOCH + 20)]), tiers=False)
    await asyncio.sleep(3)
    assert (mine.metric("waiting_records"), mine.metric("window_records")) == (0, 0)
    await world.until(lambda: world.at("t.in", 1) == 2)
    await asyncio.sleep(30)
    await world.stop()
    assert first.handler.texts == ["a"]
    assert second.handler.texts == ["a", "a", "b"]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_a_tier_holds_moves_with_its_partition_and_is_not_early() -> None:
    """Held records are dropped with their timer, and held again by the next owner, to the same moment."""
    world = await World.make()
    mine = World()
    first = await world.start(Script(), observer=mine.observer)
    world.put("a", topic="t.work.retry.1m")
    world.put("b", topic="t.work.retry.10s", headers={h.NOT_BEFORE: str(int((EPOCH + 15) * 1000))})
    await asyncio.sleep(12)
    assert mine.metric("waiting_records") == 1
    second = await world.start(Script())
    await asyncio.sleep(1)
    assert Partition("t.work.retry.10s", 0) in second.consumer.owned
    assert (mine.metric("waiting_records"), mine.metric("window_records")) == (0, 0)
    await world.until(lambda: len(world.records("t.out")) == 2)
    await world.settle()
    await world.stop()
    calls = sorted([*first.handler.calls, *second.handler.calls], key=lambda call: call.began)
    assert [call.text for call in calls] == ["b", "a"]
    assert calls[0].began >= EPOCH + 15
    assert EPOCH + 60 <= calls[1].began < EPOCH + 61
    assert second.handler.calls


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_a_tier_holds_is_moved_on_by_its_new_owner_only() -> None:
    """The timer of the old owner goes with the partition: a record that has to move on moves once."""
    world = await World.make()
    first = await world.start(Script())
    world.put("a", topic="t.work.retry.10s", headers={h.NOT_BEFORE: str(int((EPOCH + 80) * 1000))})
    await asyncio.sleep(3)
    second = await world.start(Script())
    await asyncio.sleep(3)
    assert Partition("t.work.retry.10s", 0) in second.consumer.owned
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert world.tiers() == {"10s": 1 + 1, "1m": 1, "10m": 0}
    assert first.handler.texts + second.handler.texts == ["a"]


@pytest.mark.virtual
async def test_pauses_are_made_again_after_an_assignment() -> None:
    """A client that forgets its pauses in a rebalance is told of them anew, so tiers and full windows stay paused."""
    world = await World.make()
    run = await world.start(Script(1_000.0), world.stage(timeout=5_000, concurrency=1))
    run.consumer.forgets_pauses = True
    world.put("held", topic="t.work.retry.10m")
    await asyncio.sleep(1)
    assert run.consumer.paused("t.work.retry.10m")
    other = await world.start(Script(), world.stage(name="work"))
    await asyncio.sleep(1)
    await other.stop()
    await asyncio.sleep(1)
    assert Partition("t.work.retry.10m", 0) in run.consumer.owned
    assert run.consumer.paused("t.work.retry.10m")
    world.put(*(f"n{number}" for number in range(600)), key=None)
    await asyncio.sleep(1)
    assert run.consumer.paused("t.in")
    other = await world.start(Script(), world.stage(name="work"))
    await asyncio.sleep(1)
    assert Partition("t.in", 0) in run.consumer.owned
    await other.stop()
    await asyncio.sleep(1)
    assert run.consumer.paused("t.in")
    await run.kill()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_partition_that_arrives_at_a_full_feed_starts_paused() -> None:
    """A full window takes nothing more, from a new partition either; when it has room both flow."""
    world = await World.make(partitions=2)
    first = await world.start(Script(10.0), world.stage(concurrency=8), tiers=False)
    other = await world.start(Script(), tiers=False)
    await world.settle()
    mine = next(iter(first.consumer.owned)).number
    for number in range(400):
        world.put(f"n{number}", key=None, partition=mine)
    await asyncio.sleep(2)
    assert first.consumer.paused("t.in", mine)
    await other.stop()
    await asyncio.sleep(2)
    assert first.consumer.paused("t.in", 1 - mine)
    await world.until(lambda: world.at("t.in", mine) == 400)
    assert not first.consumer.paused("t.in", 1 - mine)
    await world.stop()


@pytest.mark.virtual
async def test_a_jammed_partition_that_leaves_takes_its_jam_along() -> None:
    """What waited behind a stuck key is no longer counted, here or in the metrics, and the rest flows on."""
    world = await World.make(partitions=2)
    first = await world.start(
        Script(lambda text: 1_000.0 if text == "s0" else 0.01), world.stage(concurrency=2, timeout=2_000), tiers=False
    )
    await world.settle()
    world.put(*(f"s{number}" for number in range(400)), key=b"s", partition=1)
    await asyncio.sleep(2)
    assert first.consumer.paused("t.in", 1)
    second = await world.start(Script(), tiers=False)
    await world.until(lambda: world.at("t.in", 1) == 400)
    assert second.handler.texts == [f"s{number}" for number in range(400)]
    assert Partition("t.in", 1) not in first.consumer.owned
    for number in range(600):
        world.put(f"n{number}", key=b"%d" % number, partition=0)
    await world.until(lambda: world.at("t.in", 0) == 600)
    assert limits_for(2).records < 600
    await first.kill()
    await world.stop()


@pytest.mark.virtual
async def test_a_commit_that_failed_in_a_rebalance_is_made_up_for_in_the_end() -> None:
    """Commits may fail in silence; the last one names every partition again, so that nothing settled is repeated."""
    world = await World.make(partitions=2)
    run = await world.start(Script())
    run.consumer.loses_commits = True
    world.put("a", partition=0)
    world.put("b", partition=1)
    await world.until(lambda: len(world.records("t.out")) == 2)
    await world.settle()
    assert [world.at("t.in", 0), world.at("t.in", 1)] == [None, None]
    await world.stop()
    assert [world.at("t.in", 0), world.at("t.in", 1)] == [1, 1]


actions = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from(["start", "start", "stop", "kill", "stall"])), min_size=2, max_size=8
)


@pytest.mark.virtual
@settings(max_examples=at_most(15))
@given(actions=actions, times=st.lists(st.floats(0, 2), min_size=5, max_size=5), delay=st.floats(0, 1))
async def test_whoever_comes_and_goes_every_record_is_answered_in_order(
    actions: list[tuple[float, str]], times: list[float], delay: float
) -> None:
    """Workers start, stop, die and stand still at random: nothing is lost, repeats have equal ids, keys keep order.

    Order is that of the first record of each id in its partition, which is the one that counts.
    """
    world = await World.make(partitions=3)
    for number in range(45):
        world.put(f"{number % 9}:{number // 9}", key=b"%d" % (number % 9), partition=number % 3)
    for pause, action in actions:
        await act(world, action, times, delay)
        await asyncio.sleep(pause)
    if not alive(world):
        await act(world, "start", times, delay)
    await world.until(lambda: sum(world.at("t.in", number) or 0 for number in range(3)) == 45, seconds=600)
    await world.settle(5)
    await world.stop()
    names: dict[str | None, set[str]] = defaultdict(set)
    order: dict[bytes | None, list[str]] = defaultdict(list)
    for record, text in zip(world.records("t.out"), world.texts(), strict=True):
        if header(record, h.CE_ID) not in names:
            order[record.key].append(text)
        names[header(record, h.CE_ID)].add(text)
    assert all(len(texts) == 1 for texts in names.values())
    assert order == {b"%d" % key: [f"{key}:{number}!" for number in range(5)] for key in range(9)}


def alive(world: World) -> list[Run]:
    return [run for run in world.runs if not run.task.done() and not run.consumer.dead]


async def act(world: World, action: str, times: list[float], delay: float) -> None:
    living = alive(world)
    if action == "start":
        run = await world.start(
            Script(lambda text: times[sum(map(ord, text)) % 5]),
            world.stage(concurrency=4),
            tiers=False,
            patience=1.0,
            drain_seconds=1.5,
        )
        run.producer.delay = delay
    elif living and action == "stop":
        await living[0].stop()
    elif living and action == "kill":
        await living[-1].kill()
    elif living:
        living[0].consumer.stall = 2.5

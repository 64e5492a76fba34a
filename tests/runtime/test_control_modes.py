"""Pauses and cancellations in each mode of a stage: costly, exactly once, at most once, with retries in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.broker.memory import MemoryTimes
from pipeline.core import headers as h
from pipeline.core.errors import Defer, Retry
from pipeline.core.payloads import Control
from pipeline.core.record import Partition
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage
from pipeline.devkit.clock import wall
from tests.runtime.following import Reader
from tests.runtime.test_runner_control import Told, cancel, codes, of, pause
from tests.runtime.world import Run, Script, World

pytestmark = pytest.mark.usefixtures("unhurried")

SECOND = Partition("t.in", 1)

MODES: dict[str, dict[str, Any]] = {
    "costly": {"costly": True},
    "exactly once": {"delivery": "exactly once"},
    "at most once": {"delivery": "at most once"},
    "in place": {"retry": RetryPolicy((20.0,), in_place=True)},
    "costly, in place": {"costly": True, "retry": RetryPolicy((20.0,), in_place=True)},
}


def stage(mode: str, **policy: Any) -> Stage:
    """The usual stage in a mode."""
    return World.stage(timeout=600, **MODES[mode], **policy)


async def _waits(world: Told, mode: str) -> Run:
    """Its next try is due later, in a tier or in place."""
    return await world.begin(Script(a=[Retry("not yet")]), stage(mode))


async def _defers(world: Told, mode: str) -> Run:
    """The job waits in place."""
    return await world.begin(Script(a=[Defer("not now", until=wall() + 25)]), stage(mode))


async def _runs(world: Told, mode: str) -> Run:
    """The job's handler runs."""
    return await world.begin(Script(30.0), stage(mode))


async def _queues(world: Told, mode: str) -> Run:
    """The job is ready, and all slots are taken."""
    world.put("other", key=None, headers=of("o"))
    return await world.begin(Script(30.0), stage(mode, concurrency=1))


async def _stands_behind(world: Told, mode: str) -> Run:
    """The job stands in its key's queue behind another."""
    world.put("other", headers=of("o"))
    return await world.begin(Script(30.0), stage(mode))


async def _held(world: Told, mode: str) -> Run:
    """The job is held by a pause."""
    world.tell(pause(tenant="acme"))
    return await world.begin(Script(), stage(mode))


async def _stage_held(world: Told, mode: str) -> Run:
    """All work of the stage is held."""
    world.tell(pause(stage="work"))
    return await world.begin(Script(), stage(mode))


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", [_waits, _defers, _runs, _queues, _stands_behind, _held, _stage_held])
async def test_a_job_is_cancelled_wherever_it_is(place: Callable[[Told, str], Any], mode: str) -> None:
    """It ends by one failure event `cancelled` and is not handled any more, in any mode."""
    world = await Told.of()
    run = await place(world, mode)
    world.put("a", headers=of("j", "acme"))
    await world.settle(3)
    tried = run.handler.texts.count("a")
    world.tell(cancel("j"))
    world.tell(pause(stage="work"), back=True)
    await world.until(lambda: codes(world), seconds=60)
    await world.until(lambda: world.metric("window_records") == 0)
    await world.settle(30)
    assert codes(world) == ["cancelled"]
    assert (run.handler.texts.count("a"), run.handler.running) == (tried, [])
    assert world.at() == len(world.records("t.in"))
    assert (world.dead(), "a!" in world.texts()) == ([], False)
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", [{"stage": "work"}, {"tenant": "acme"}])
async def test_what_a_pause_holds_is_handled_once_when_it_is_over(scope: dict[str, str], mode: str) -> None:
    """What runs is finished, what waits waits on, over a restart too; afterwards each is handled, and nothing twice."""
    world = await Told.of()
    handler = Script(5.0, c=[Retry("not yet")])
    run = await world.begin(handler, stage(mode, concurrency=2))
    for text in "cabde":
        world.put(text, key=text.encode(), headers=of(f"job-{text}", "acme"))
    await world.until(lambda: "c" in handler.texts and len(handler.running) == 2)
    world.tell(pause(**scope))
    await world.settle(100)
    assert len(handler.calls) <= 3
    await run.stop()
    again = await world.begin(Script(5.0), stage(mode, concurrency=2))
    await world.settle(100)
    assert again.handler.calls == []
    world.tell(pause(**scope), back=True)
    await world.until(lambda: len(world.texts()) == 5, seconds=200)
    await world.settle(30)
    assert sorted(world.texts()) == ["a!", "b!", "c!", "d!", "e!"]
    assert (codes(world), world.dead()) == ([], [])
    assert sorted(handler.texts + again.handler.texts) == ["a", "b", "c", "c", "d", "e"]
    await world.end()


@pytest.mark.virtual
@pytest.mark.parametrize("mode", ["usual", "costly", "at most once"])
async def test_what_gives_up_its_place_while_its_pause_ends_is_handled_once(mode: str) -> None:
    """Its copy in a tier is not acknowledged yet when it is released: handled here too, it would have two ends."""
    world = await Told.of(pause(tenant="acme"))
    run = await world.begin(Script(), World.stage() if mode == "usual" else stage(mode))
    run.producer.delay = 5.0
    world.put("a", headers=of("j", "acme"))
    await world.until(lambda: run.producer.sent, seconds=40)
    world.tell(pause(tenant="acme"), back=True)
    await world.settle(90)
    assert [record.topic for record in run.producer.sent] == ["t.work.retry.1m", "t.out"]
    assert (run.handler.texts, world.texts(), world.at()) == (["a"], ["a!"], 1)
    await world.end()


# ------------------------------------------------------------------ costly calls that others make or have made


async def _handed_over(world: Told, seconds: float = 60.0) -> tuple[Run, Run]:
    """Let a worker begin with job `j`, and lose its partition to another one while the call runs."""
    policy = stage("costly")
    first = await world.begin(Script(seconds), policy, tiers=False)
    await world.settle()
    world.put("a", partition=1, headers=of("j", "acme"))
    await world.until(lambda: first.handler.texts == ["a"])
    second = await world.begin(Script(), policy, tiers=False)
    await world.until(lambda: SECOND in second.consumer.owned)
    await world.settle()
    return first, second


@pytest.mark.virtual
async def test_a_call_that_was_handed_over_is_cancelled_by_who_makes_it() -> None:
    """Its old owner cuts it and says so, once; its new owner settles the record by that."""
    world = await Told.of(partitions=2)
    first, second = await _handed_over(world)
    world.tell(cancel("j"))
    await world.until(lambda: world.at("t.in", 1) == 1, seconds=5)
    await world.settle(30)
    assert (codes(world), first.handler.running, first.handler.done) == (["cancelled"], [], [])
    assert (second.handler.texts, world.texts()) == ([], [])
    await world.end()


@pytest.mark.virtual
async def test_a_call_whose_old_owner_is_gone_is_cancelled_by_the_new_one() -> None:
    """Not before it is known to be gone: its answer could be there already."""
    world = await Told.of(partitions=2)
    first, second = await _handed_over(world)
    await first.kill()
    world.tell(cancel("j"))
    await world.settle(5)
    assert codes(world) == []
    await world.until(lambda: world.at("t.in", 1) == 1, seconds=20)
    await world.settle(30)
    assert (codes(world), second.handler.texts, world.texts()) == (["cancelled"], [], [])
    await world.end()


@pytest.mark.virtual
@pytest.mark.parametrize("scope", [{}, {"tenant": "acme"}])
async def test_an_answer_that_was_waited_for_settles_its_record_in_a_pause(scope: dict[str, str]) -> None:
    """What runs is finished, also for another worker: nothing is held that needs no call."""
    world = await Told.of(partitions=2)
    _, second = await _handed_over(world, 10.0)
    world.tell(pause(**scope))
    await world.until(lambda: world.at("t.in", 1) == 1, seconds=20)
    assert (second.handler.texts, world.texts()) == ([], ["a!"])
    assert world.metric("held_records") == 0
    await world.end()


@pytest.mark.virtual
@pytest.mark.parametrize("entry", [cancel("j"), pause(tenant="acme"), pause(stage="work")])
async def test_what_is_answered_is_neither_cancelled_nor_held(entry: Control) -> None:
    """Answered, and its worker killed before the commit: a cancellation comes too late, and a pause has no reason."""
    world = await Told.of()
    first = await world.begin(Script(), stage("costly"))
    first.consumer.loses_commits = True
    world.put("a", headers=of("j", "acme"))
    await world.until(world.texts)
    await first.kill()
    world.tell(entry)
    await world.settle(2)
    second = await world.begin(Script(), stage("costly"))
    await world.settle(60)
    world.tell(entry, back=True)
    await world.until(lambda: world.at() == 1)
    assert (codes(world), second.handler.texts, world.texts()) == ([], [], ["a!"])
    assert sum(world.tiers().values()) == 0
    await world.end()


@pytest.mark.virtual
async def test_a_repetition_of_what_is_answered_is_not_cancelled() -> None:
    """The job has its end; the same event at another offset does not give it a second one."""
    world = await Told.of()
    run = await world.begin(Script(), stage("costly"))
    world.put("a", headers=of("j"))
    await world.until(world.texts)
    await world.settle()
    world.tell(cancel("j"))
    await world.settle()
    world.put("a", headers=of("j"))
    await world.until(lambda: world.at() == 2)
    await world.settle()
    assert (codes(world), run.handler.texts, world.texts()) == ([], ["a"], ["a!"])
    await world.end()


@pytest.mark.virtual
async def test_after_a_standstill_nothing_is_cancelled_before_it_is_known_to_be_unanswered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While this worker stood still another one may have answered: the job must not end a second time."""
    world = await Told.of()
    reader = Reader(world.broker)
    run = await world.begin(Script(30.0), stage("costly", concurrency=1), reader=reader)
    world.put("other", key=None, headers=of("o"))
    (record,) = world.put("a", key=None, headers=of("j"))
    await world.until(lambda: run.handler.texts == ["other"])
    reader.away = True
    follower = run.runner._follower
    assert follower is not None
    monkeypatch.setattr(follower, "_turned", asyncio.get_running_loop().time() - 60)
    told = {h.PARENT: "event-j", h.SETTLES: str(record.position), h.OUTPUT: "0/1", h.CE_ID: "child"}
    world.put("a!", topic="t.out", headers=told)
    world.tell(cancel("j"))
    await world.settle(5)
    reader.away = False
    await world.until(lambda: world.at() == 2)
    assert (codes(world), run.handler.texts) == ([], ["other"])
    await world.end()


@pytest.mark.virtual
async def test_a_paused_stage_catches_up_with_its_answers_all_the_same() -> None:
    """Whoever gets a partition while its stage is paused reads its answers meanwhile, and calls for what has none."""
    world = await Told.of()
    first = await world.begin(Script(), stage("costly"))
    first.consumer.loses_commits = True
    world.put("a", headers=of("j"))
    await world.until(world.texts)
    await first.kill()
    world.tell(pause(stage="work"))
    await world.settle(2)
    reader = Reader(world.broker, lag=5.0)
    second = await world.begin(Script(), stage("costly"), reader=reader)
    await world.settle(30)
    world.put("b", headers=of("k"))
    assert second.runner.status()[2].startswith("running, but paused by hand")
    world.tell(pause(stage="work"), back=True)
    await world.until(lambda: world.at() == 2, seconds=5)
    assert (second.handler.texts, world.texts()) == (["b"], ["a!", "b!"])
    await world.end()


# ------------------------------------------------------------------ exactly once


@pytest.mark.virtual
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("after", [0.0, 0.3, 1.5])
async def test_a_job_whose_answer_is_in_a_transaction_has_one_end(after: float, moves: bool) -> None:
    """A cancellation comes while the answer is being committed, and its partition may leave too: it counts or it does
    not, and a read_committed reader sees one end."""
    world = await Told.of(partitions=2)
    world.broker.times = MemoryTimes(transact=1.0)
    run = await world.begin(Script(), stage("exactly once"), tiers=False)
    await world.settle()
    world.put("a", partition=1, headers=of("j"))
    await world.until(lambda: run.handler.done == ["a"])
    await world.settle(after)
    if moves:
        await world.begin(Script(), stage("exactly once"), tiers=False)
    world.tell(cancel("j"))
    await world.until(lambda: world.at("t.in", 1) == 1, seconds=60)
    await world.settle(30)
    assert len(world.texts()) + len(codes(world)) == 1
    await world.end()


# ------------------------------------------------------------------ at most once


@pytest.mark.virtual
async def test_a_cancelled_record_that_is_committed_early_is_told_of() -> None:
    """It was not begun, so nobody else will ever tell: the failure event is written after the commit."""
    world = await Told.of(cancel("j"))
    run = await world.begin(Script(), stage("at most once"))
    run.producer.delay = 2.0
    world.put("a", "b", headers=of("j"))
    await world.until(lambda: world.at() == 2)
    await run.stop()
    assert (codes(world), run.handler.texts) == (["cancelled", "cancelled"], [])
    await world.end()


@pytest.mark.virtual
async def test_a_cancelled_record_of_a_tier_is_committed_before_it_is_told_of() -> None:
    """Who is killed between the two tells nobody, and who follows does not tell again."""
    world = await Told.of()
    first = await world.begin(Script(a=[Retry("not yet")]), stage("at most once"))
    world.put("a", headers=of("j"))
    await world.until(lambda: world.tiers()["10s"] == 1)
    await first.stop()
    world.tell(cancel("j"))
    second = await world.begin(Script(), stage("at most once"))
    second.consumer.loses_commits = True
    await world.settle(30)
    assert codes(world) == []
    await second.kill()
    third = await world.begin(Script(), stage("at most once"))
    await world.until(lambda: codes(world))
    await world.settle(30)
    assert (codes(world), second.handler.texts, third.handler.texts) == (["cancelled"], [], [])
    await world.end()

"""The end of a run: a drain that finishes what it can and abandons what it must, and halts that are never silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Halt, Reject, Retry
from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Outgoing, Partition
from pipeline.devkit.clock import EPOCH
from tests.runtime.world import Note, Script, World, header


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


@pytest.mark.virtual
async def test_a_stop_lets_running_handlers_finish() -> None:
    """What runs is finished, written, acknowledged and committed; what is ready is left to the next worker."""
    world = await World.make()
    run = await world.start(Script(5.0), world.stage(concurrency=2))
    for number in range(6):
        world.put(f"n{number}", key=b"%d" % number)
    await asyncio.sleep(1)
    before = now()
    run.runner.stop()
    await asyncio.sleep(1)
    assert run.consumer.paused("t.in")
    await run.task
    assert 4 <= now() - before < 4.5
    assert sorted(run.handler.done) == ["n0", "n1"]
    assert run.handler.texts == ["n0", "n1"]
    assert world.at() == 2
    assert run.runner.state == "stopped"


@pytest.mark.virtual
async def test_the_next_of_a_key_is_not_begun_in_a_drain() -> None:
    """Successors stay where they are, uncommitted."""
    world = await World.make()
    run = await world.start(Script(2.0))
    world.put("a", "b")
    await asyncio.sleep(1)
    await run.stop()
    assert run.handler.texts == ["a"]
    assert world.at() == 1


@pytest.mark.virtual
async def test_the_drain_deadline_cuts_what_still_runs() -> None:
    """Past the deadline handlers are cancelled and their records left uncommitted, by name in the log."""
    world = await World.make()
    run = await world.start(Script(lambda text: 1_000.0 if text == "long" else 1.0), drain_seconds=10.0)
    world.put("long", key=b"l")
    world.put("short", key=b"s")
    await asyncio.sleep(0.5)
    before = now()
    with capture_logs() as logs:
        await run.stop()
    assert 10 <= now() - before < 11
    assert run.handler.done == ["short"]
    assert run.handler.running == []
    assert world.at() in {None, 0}
    (told,) = [line for line in logs if line["action"] == "work.drain_abandoned"]
    assert told["records"] == ["t.in/0/0"]
    assert run.runner.state == "stopped"


@pytest.mark.virtual
async def test_a_drain_waits_for_acknowledgements() -> None:
    """A handler is done before its output is: the drain lasts until the broker has it."""
    world = await World.make()
    run = await world.start(Script())
    run.producer.delay = 8.0
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await run.stop()
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_broker_that_does_not_answer_does_not_keep_a_drain_for_ever() -> None:
    """Without acknowledgements it ends at its deadline, a second later at most, and commits nothing of it."""
    world = await World.make()
    run = await world.start(Script(), drain_seconds=5.0)
    run.producer.delay = 1_000.0
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    before = now()
    await run.stop()
    assert now() - before < 6.5
    assert world.at() is None


@pytest.mark.virtual
async def test_a_drain_does_not_wait_for_what_others_send() -> None:
    """Stages share a producer: one that stops waits for its own records only, however busy the others are."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a")
    await world.until(lambda: world.at() == 1)
    run.producer.delay = 1_000.0
    run.producer.send(run.producer.sent[0], lambda _: None)
    before = now()
    await run.stop()
    assert now() - before < 1


@pytest.mark.virtual
async def test_a_write_refused_during_a_drain_is_brought_to_its_other_end() -> None:
    """An output too large that comes back while draining becomes a dead letter before the end."""
    world = await World.make()
    run = await world.start(Script())
    run.producer.refuse = lambda record: RecordTooLarge("too large") if record.topic == "t.out" else None
    run.producer.delay = 3.0
    world.put("a")
    await asyncio.sleep(1)
    await run.stop()
    assert len(world.dead()) == 1
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_write_refused_after_the_drain_leaves_its_record_uncommitted() -> None:
    """Too late for another end: nothing is started any more, and the next worker meets the record again."""
    world = await World.make()
    run = await world.start(Script(), drain_seconds=2.0)
    run.producer.refuse = lambda record: RecordTooLarge("too large") if record.topic == "t.out" else None
    run.producer.delay = 2.9
    world.put("a")
    await asyncio.sleep(0.1)
    await run.stop()
    assert world.dead() == []
    assert world.at() is None


@pytest.mark.virtual
async def test_what_was_prefetched_is_not_committed_past() -> None:
    """Records that arrive while draining, before the pause took hold, are booked and left."""
    world = await World.make()
    run = await world.start(Script(3.0))
    run.consumer.pauses_late = True
    world.put("a")
    await asyncio.sleep(1)
    run.runner.stop()
    await asyncio.sleep(0.05)
    world.put("b", "c", key=b"other")
    await run.task
    assert run.handler.texts == ["a"]
    assert world.at() == 1
    again = await world.start(Script())
    await world.until(lambda: world.at() == 3)
    await world.stop()
    assert again.handler.texts == ["b", "c"]


@pytest.mark.virtual
async def test_partitions_that_arrive_during_a_drain_are_left_alone() -> None:
    """A member that is leaving may still be given partitions: it takes nothing of them and commits nothing past it."""
    world = await World.make(partitions=2)
    run = await world.start(Script(5.0), tiers=False)
    other = await world.start(Script(), tiers=False)
    await world.settle()
    mine = next(iter(run.consumer.owned)).number
    world.put("a", partition=mine)
    await asyncio.sleep(1)
    run.runner.stop()
    await asyncio.sleep(0.5)
    world.put("b", partition=1 - mine)
    await other.kill()
    world.broker.group("t.work").leave(1)
    await run.task
    assert run.handler.texts == ["a"]
    assert world.at("t.in", mine) == 1


@pytest.mark.virtual
async def test_what_waits_in_place_or_in_a_tier_stays_uncommitted_in_a_stop() -> None:
    """Deferred, held and resting records are neither waited for nor lost: the next worker has them again."""
    world = await World.make()
    run = await world.start(Script(a=[Defer("later", until=EPOCH + 25)]))
    world.put("a", "behind")
    world.put("held", topic="t.work.retry.1m", headers={h.NOT_BEFORE: str(int((EPOCH + 90) * 1000))})
    world.put("rests", topic="t.work.retry.10s", headers={h.NOT_BEFORE: str(int((EPOCH + 18) * 1000))})
    await asyncio.sleep(12)
    before = now()
    await run.stop()
    assert now() - before < 1
    await asyncio.sleep(100)
    assert run.handler.texts == ["a"]
    assert run.producer.sent == []
    again = await world.start(Script())
    await world.until(lambda: len(world.records("t.out")) == 4)
    await world.stop()
    assert sorted(again.handler.texts) == ["a", "behind", "held", "rests"]


@pytest.mark.virtual
async def test_a_run_that_is_cancelled_drains_too() -> None:
    """Cancelling `run` is a stop: what runs is finished and committed before the cancellation goes on."""
    world = await World.make()
    run = await world.start(Script(2.0))
    world.put("a")
    await asyncio.sleep(1)
    run.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run.task
    assert run.task.cancelled()
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_handler_that_swallows_its_cancellation_cannot_keep_the_stage() -> None:
    """Once is forgiven, and its answer counts; one that never lets go is left behind after a few seconds."""
    world = await World.make()

    async def deaf(times: int) -> list[Note]:
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10_000)
        return [Note(text="all the same")]

    script = Script(once=[lambda: deaf(1)], never=[lambda: deaf(4)])
    run = await world.start(script, world.stage(timeout=100_000), drain_seconds=1.0)
    world.put("once", key=b"1")
    world.put("never", key=b"2")
    await asyncio.sleep(1)
    before = now()
    await run.stop()
    assert now() - before < 6
    assert run.runner.state == "stopped"
    assert script.running == ["never"]
    assert world.at() == 1
    await asyncio.sleep(20_000)
    assert script.running == []


# ---------------------------------------------------------------- halts


@pytest.mark.virtual
async def test_a_halt_stops_the_stage_and_commits_what_was_settled() -> None:
    """`run` raises it, the state says so, what runs is finished, and the record that raised it stays uncommitted."""
    world = await World.make()
    run = await world.start(Script(lambda text: 5.0 if text == "running" else 1.0, bad=[Halt("the flood guard")]))
    world.put("good", key=b"g")
    await world.until(lambda: world.at() == 1)
    world.put("running", key=b"r")
    world.put("bad", key=b"b")
    with capture_logs() as logs:
        halt = await run.halted()
    assert halt.reason == "the flood guard"
    assert run.handler.done == ["good", "running"]
    assert world.texts() == ["good!", "running!"]
    assert world.at() == 2
    assert (run.runner.state, run.runner.reason) == ("halted", "the flood guard")
    assert not run.runner.ready()
    (told,) = [line for line in logs if line["action"] == "work.halted"]
    assert (told["log_level"], told["reason"]) == ("error", "the flood guard")
    assert world.metric("stage_halted") == 1
    assert world.metric("tries_total", outcome="halt") == 1


@pytest.mark.virtual
async def test_nothing_is_begun_after_a_halt() -> None:
    """Neither the next of the halted key, which would overtake it, nor anything else that is ready."""
    world = await World.make()
    run = await world.start(Script(bad=[Halt("stop")]), world.stage(concurrency=1))
    world.put("bad", "next")
    world.put("other", key=b"o")
    await run.halted()
    assert run.handler.texts == ["bad"]
    assert world.at() is None


@pytest.mark.virtual
async def test_the_first_halt_is_the_reason() -> None:
    """Others that follow in the drain do not hide it."""
    world = await World.make()
    run = await world.start(Script(lambda text: 1.0 if text == "b" else 0.0, a=[Halt("one")], b=[Halt("two")]))
    world.put("b", key=b"b")
    world.put("a", key=b"a")
    assert (await run.halted()).reason == "one"


@pytest.mark.virtual
async def test_a_halt_of_the_consumer_stops_the_stage() -> None:
    """An offset out of range is for a person to decide: the stage halts with the consumer's own sentence."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await run.stop()
    world.put("b", "c")
    world.broker.trim(Partition("t.in", 0), 3)
    world.put("d")
    again = await world.start(Script())
    halt = await again.halted()
    assert "t.in" in halt.reason
    assert again.handler.texts == []
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_halt_of_the_consumer_during_a_drain_ends_it() -> None:
    """With nothing to be polled any more, handlers are cut; what was settled is committed."""
    world = await World.make()
    run = await world.start(Script(lambda text: 0.0 if text == "a" else 20.0))
    world.put("a", "b")
    await asyncio.sleep(1)
    run.runner.stop()
    await asyncio.sleep(1)
    run.consumer.failure = Halt("fenced")
    assert (await run.halted()).reason == "fenced"
    assert now() < 5
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_bug_in_a_worker_halts_the_stage() -> None:
    """A worker that dies of our own bug does not vanish: the stage stops and says of what."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later")]))

    def broken(_: Outgoing) -> Exception | None:
        raise ZeroDivisionError("our bug")

    run.producer.refuse = broken
    world.put("a")
    halt = await run.halted()
    assert halt.reason == "a worker of work died of a bug: ZeroDivisionError: our bug"
    assert world.at() is None


@pytest.mark.virtual
async def test_an_error_that_no_port_may_raise_ends_the_run() -> None:
    """Not a halt but a crash: it is raised as it is, after a drain that commits what was settled."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    run.consumer.failure = ZeroDivisionError("a bug of the adapter")
    await asyncio.wait([run.task])
    assert isinstance(run.task.exception(), ZeroDivisionError)
    assert world.at() == 1


@pytest.mark.virtual
async def test_a_dead_letter_is_reported_with_job_stage_and_action() -> None:
    """Log lines of a try carry job, event, trace and stage; those of its end a stable action and the source."""
    world = await World.make()

    class Logging(Script):
        async def __call__(self, event: Any, ctx: Any, /) -> Any:
            await super().__call__(event, ctx)
            raise Reject("no good")

    run = await world.start(Logging())
    with capture_logs() as logs:
        world.put("a", headers={h.CE_ID: "e", h.CE_SUBJECT: "job-1"})
        await world.until(lambda: world.at() == 1)
    await run.stop()
    (told,) = [line for line in logs if line["action"] == "work.dead_letter"]
    assert told["log_level"] == "warning"
    assert told["event"] == "work: dead_letter"
    assert (told["job"], told["event_id"], told["stage"], told["source"]) == ("job-1", "e", "work", "t.in/0/0")
    assert told["reason"] == "Reject: no good"
    assert header(world.dead()[0], h.CE_ID) == "e"

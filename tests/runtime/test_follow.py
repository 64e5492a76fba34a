"""Never pay twice: what is answered is settled without a call, whoever wrote the answer and whatever became of him."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Halt, Reject, Retry
from pipeline.core.record import Partition, Record
from pipeline.core.retry import RetryPolicy
from pipeline.devkit.clock import EPOCH, wall
from tests.runtime.following import Reader, calls, costly, uncommitted
from tests.runtime.world import OPEN, Note, Script, World, header

IN, OUT = Partition("t.in", 0), Partition("t.out", 0)


def settles(record: Record) -> str:
    """The place that a record says it settles."""
    return (header(record, h.SETTLES) or "").rpartition("/")[0]


@pytest.mark.virtual
@pytest.mark.parametrize("clock", [wall, lambda: -0.001, lambda: wall() + 3_600, lambda: 1.0])
async def test_an_answer_whose_commit_was_lost_is_not_paid_again(clock: Callable[[], float]) -> None:
    """Answered, killed before the commit: the next owner settles without a call, whatever the records' timestamps."""
    world = await World.make(broker=MemoryBroker(clock))
    first = await uncommitted(world, Script())
    world.put("a", "b", "c")
    await world.until(lambda: len(world.texts()) == 3)
    await first.kill()
    second = await world.start(Script(), costly())
    world.put("d")
    await world.until(lambda: world.at() == 4)
    assert (first.handler.texts, second.handler.texts) == (["a", "b", "c"], ["d"])
    assert world.texts() == ["a!", "b!", "c!", "d!"]
    assert world.metric("records_settled_total", end="answered") == 3
    await world.stop()


@pytest.mark.virtual
async def test_a_failure_is_an_answer() -> None:
    """A request that the model has refused for good is not sent to it again."""
    world = await World.make()
    first = await uncommitted(world, Script(a=[Fail("refused")]))
    world.put("a")
    await world.until(world.failures)
    await first.kill()
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 1)
    assert (calls(first.handler, second.handler), world.texts(), len(world.failures())) == ({"a": 1}, [], 1)
    await world.stop()


@pytest.mark.virtual
async def test_a_copy_whose_source_was_not_committed_is_the_only_one() -> None:
    """Written to a tier, killed before the commit: the next owner makes no second copy, and tries when it is due."""
    world = await World.make()
    first = await uncommitted(world, Script(a=[Retry("later")]))
    world.put("a")
    await world.until(lambda: world.tiers()["10s"])
    await first.kill()
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 1)
    await world.until(world.texts)
    await world.settle()
    assert [call.attempt for call in second.handler.calls] == [2]
    assert world.tiers()["10s"] == 1
    await world.stop()


@pytest.mark.virtual
async def test_what_was_answered_from_a_tier_is_not_paid_again() -> None:
    """The second try, from the tier, has answered; killed before any commit, neither source nor tier is tried again."""
    world = await World.make()
    first = await uncommitted(world, Script(a=[Retry("later")]))
    world.put("a")
    await world.until(world.texts)
    await first.kill()
    second = await world.start(Script(), costly())
    await world.until(lambda: (world.at(), world.at("t.work.retry.10s")) == (1, 1))
    assert (first.handler.texts, second.handler.texts) == (["a", "a"], [])
    assert (world.texts(), world.tiers()["10s"]) == (["a!"], 1)
    await world.stop()


@pytest.mark.virtual
async def test_a_dead_letter_is_not_tried_again_but_its_replay_is() -> None:
    """A dead letter whose source was not committed stays one; brought back by a person it is a new record."""
    world = await World.make()
    first = await uncommitted(world, Script(a=[Reject("no")]))
    (record,) = world.put("a", headers={h.CE_ID: "event-1"})
    await world.until(world.dead)
    await first.kill()
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 1)
    assert (second.handler.texts, len(world.dead())) == ([], 1)
    world.write(record.value, headers=record.headers)
    await world.until(lambda: world.at() == 2)
    assert (second.handler.texts, world.texts()) == (["a"], ["a!"])
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("lost", ["t.failures", "t.work.dlq"])
async def test_a_dead_letter_and_its_failure_event_answer_only_together(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with one of them written: the record was in hand, and its job gets the end that its owner hears of."""
    world = await World.make()
    first = await uncommitted(world, Script(a=[Reject("no")]))
    send = first.producer.send
    monkeypatch.setattr(first.producer, "send", lambda one, told: None if one.topic == lost else send(one, told))
    world.put("a", headers={h.CE_ID: "event-1"})
    await world.until(lambda: world.dead() or world.failures())
    await first.kill()
    second = await world.start(Script(a=[Reject("no")]), costly())
    await world.until(lambda: world.at() == 1)
    assert {settles(one) for one in (*world.dead(), *world.records("t.failures"))} == {"t.in/0/0"}
    assert (second.handler.texts, bool(world.dead()), bool(world.failures())) == (["a"], True, True)
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_open_topics_too() -> None:
    """What outsiders write has ids of our own making; they are found again all the same."""
    world = await World.make()
    stage = World.stage(OPEN, costly=True)
    first = await world.start(Script(a=[Retry("later")]), stage)
    first.consumer.loses_commits = True
    world.put("a", "b", key=None, topic="t.open")
    await world.until(lambda: len(world.texts()) == 2)
    await first.kill()
    second = await world.start(Script(), stage)
    await world.until(lambda: world.at("t.open") == 2)
    await world.settle(20)
    assert calls(first.handler, second.handler) == {"a": 2, "b": 1}
    await world.stop()


@pytest.mark.virtual
async def test_several_outputs_answer_only_together() -> None:
    """Of two outputs only the first was written: the call is made again, under the same ids; with both it is not."""
    world = await World.make()
    both = [Note(text="1"), Note(text="2")]
    first = await uncommitted(world, Script(a=[both], b=[both]))
    first.producer.refuse = lambda record: Halt("lost") if b'"2"' in (record.value or b"") else None
    world.put("b")
    await world.until(lambda: world.texts() == ["1"] or first.task.done())
    await first.halted()
    first.consumer.dead = True
    second = await uncommitted(world, Script(b=[both]))
    await world.until(lambda: second.handler.done == ["b"])
    await world.settle()
    await second.kill()
    third = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 1)
    assert third.handler.texts == []
    await third.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_nothing_is_taken_before_the_answers_are_read() -> None:
    """While its reader is away a stage waits and says so; then it says how much is left, and settles without a call."""
    world = await World.make()
    first = await uncommitted(world, Script())
    world.put("a")
    await world.until(world.texts)
    await first.kill()
    reader = Reader(world.broker)
    reader.away = True
    second = await world.start(Script(), costly(), reader=reader)
    await world.settle(60)
    assert (second.handler.texts, second.consumer.paused("t.in")) == ([], True)
    assert second.runner.status() == ("work", True, "catching up with its answers: asking the broker where they end")
    reader.lag, reader.away = 5.0, False
    await world.settle(3)
    assert second.runner.status()[2] == "catching up with its answers: 1 records left to read"
    await world.until(lambda: world.at() == 1)
    assert (second.handler.texts, second.runner.status()[2]) == ([], "running")
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_reader_that_is_slow_costs_nothing_while_all_is_well() -> None:
    """A stage settles what it answers itself without waiting to read it; to read it later changes nothing."""
    world = await World.make()
    reader = Reader(world.broker, lag=30.0)
    run = await world.start(Script(0.1), costly(), reader=reader)
    world.put(*map(str, range(50)))
    await world.until(lambda: world.at() == 50, seconds=20)
    await world.settle(300)
    assert (calls(run.handler), reader.count) == ({str(number): 1 for number in range(50)}, 50)
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_stalled_owner_that_goes_on_is_seen() -> None:
    """While it stood still another worker paid as well, for what ran; for all that came after, one pays."""
    world = await World.make()
    first = await world.start(Script(5.0), costly(), patience=2.0)
    await world.settle()
    world.put("a", "b")
    await world.settle()
    first.consumer.stall = 10.0
    await world.settle()
    second = await world.start(Script(60.0), costly())
    await world.until(lambda: world.at() == 2)
    assert (first.handler.texts, second.handler.texts) == (["a", "b"], ["a"])
    assert first.handler.calls[1].began < EPOCH + 12
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_paid_answer_that_cannot_be_encoded_now_is_kept() -> None:
    """The registry is away for a minute: the call is not made again, though no deferral waits so long in place."""
    world = await World.make()
    away = [Defer("registry", until=EPOCH + 70) for _ in range(3)]

    def encoding(_: str) -> None:
        if away:
            raise away.pop()

    world.codec.encoding = encoding
    run = await world.start(Script(), costly())
    world.put("a")
    await world.until(world.texts)
    await world.settle()
    assert (run.handler.texts, world.at(), sum(world.tiers().values())) == (["a"], 1, 0)
    await world.stop()


@pytest.mark.virtual
async def test_following_that_ends_stops_the_stage() -> None:
    """Without its answers a stage would pay blindly: it halts, and says why."""
    world = await World.make()
    reader = Reader(world.broker)
    reader.failure = ZeroDivisionError("broken")
    run = await world.start(Script(), costly(), reader=reader)
    halt = await run.halted()
    assert halt.reason == "the answers of work cannot be followed any more: ZeroDivisionError: broken"
    reader = Reader(world.broker)
    reader.failure = Halt("topic t.out may not be read")
    assert (
        await (await world.start(Script(), costly(), reader=reader)).halted()
    ).reason == "topic t.out may not be read"


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_a_costly_stage_writes_says_what_it_settles() -> None:
    """Outputs, failures, copies and dead letters name the record they settle; a cheap stage's do not."""
    world = await World.make()
    await world.start(Script(a=[Retry("later"), Reject("no")], b=[Fail("no")]), costly())
    await world.start(Script(), World.stage(output=None, name="cheap"))
    world.put("a", "b", "c")
    await world.until(lambda: world.dead() and world.failures() and world.texts())
    await world.settle()
    await world.stop()
    told = {topic: [settles(one) for one in world.records(topic)] for topic in ("t.out", "t.work.retry.10s")}
    assert told == {"t.out": ["t.in/0/2"], "t.work.retry.10s": ["t.in/0/0"]}
    assert [settles(one) for one in world.dead()] == ["t.work.retry.10s/0/0"]
    (failed, *_) = world.records("t.failures")
    assert header(failed, h.SETTLES) == f"t.in/0/1/{world.records('t.in')[1].timestamp_ms}"
    assert not any(header(one, h.SETTLES) for one in world.records("t.cheap.dlq"))


@pytest.mark.virtual
async def test_with_more_workers_than_partitions_of_a_number() -> None:
    """Lanes and tiers of one number with different owners: each follows for itself, and nothing is paid twice."""
    world = await World.make(partitions=2, broker=MemoryBroker(wall, MemoryTimes(acknowledge=0.05)))
    runs = [await world.start(Script(0.5), costly(retry=RetryPolicy((10.0,)))) for _ in range(3)]
    for number in range(40):
        world.put(f"n{number}", key=None, partition=number % 2)
    await world.settle(3)
    await runs[0].stop()
    await world.until(lambda: len(world.texts()) == 40)
    await world.settle()
    assert calls(*(run.handler for run in runs)) == {f"n{number}": 1 for number in range(40)}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_process_that_stood_still_reads_before_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was stopped for long may have lost its partitions: it calls only after it has read what others wrote."""
    world = await World.make()
    reader = Reader(world.broker)
    run = await world.start(Script(), costly(), reader=reader)
    await world.settle()
    reader.away = True
    follower = run.runner._follower
    assert follower is not None
    monkeypatch.setattr(follower, "_turned", asyncio.get_running_loop().time() - 60)
    world.put("a", "b")
    await world.settle(30)
    assert run.handler.texts == []
    reader.away = False
    await world.until(lambda: world.at() == 2)
    assert run.handler.texts == ["a", "b"]
    await world.stop()

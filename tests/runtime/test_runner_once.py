"""Exactly once: for a read_committed reader every record leads to its outputs once, and the offsets say so together."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.broker.memory_transactions import Fault
from pipeline.core.errors import Fail, Halt, Reject, Retry
from pipeline.core.ports import Batch, Ended
from pipeline.core.record import Partition
from pipeline.runtime import once
from tests.runtime.once_world import ONCE, answered, committed, finish, slow_world, stage, watched
from tests.runtime.world import END, OUT, Note, Script, World

pytestmark = pytest.mark.virtual


async def test_outputs_and_offsets_come_together() -> None:
    """At no moment is an output there without its offset, or an offset without its output; order is kept."""
    world = await World.make(partitions=3)
    for number in range(60):
        world.put(f"{number}", key=b"%d" % (number % 9), partition=number % 3)
    async with watched(world):
        run = await world.start(Script(lambda text: 0.03 * (int(text) % 7)), stage())
        await finish(world, 60)
    for key in range(9):
        texts = [
            text for text, one in zip(world.texts(), world.records("t.out"), strict=True) if one.key == b"%d" % key
        ]
        assert texts == [f"{number}!" for number in range(key, 60, 9)]
    assert run.producer.sent == []
    assert [offsets for _, offsets in run.consumer.commits if offsets] == []


async def test_many_records_share_a_transaction() -> None:
    """Transactions begin a tenth of a second apart, however many records there are."""
    world = await World.make()
    world.put(*map(str, range(300)), key=None)
    start = asyncio.get_running_loop().time()
    await world.start(Script(), stage())
    await world.until(lambda: world.at() == 300)
    took = asyncio.get_running_loop().time() - start
    markers = world.broker.range(Partition("t.out", 0))[1] - 300
    assert 1 <= markers <= 2 + took / once.GROUP_SECONDS
    assert world.metric("commits_total") >= markers
    await world.stop()


async def test_lag_reaches_zero_behind_transactions() -> None:
    """A stage that reads a transactional topic commits past the last marker, whatever its own delivery."""
    world = await World.make()
    world.put("a", "b")
    await world.start(Script(), stage())
    await world.start(Script(), World.stage(OUT, output=END, name="plain"))
    await world.start(Script(), World.stage(OUT, output=END, name="same", delivery=ONCE))
    await world.until(lambda: len(world.texts("t.end")) == 4)
    await world.settle()
    for name in ("plain", "same"):
        assert set((await world.broker.lag(f"t.{name}", ["t.out"])).values()) == {0}
    await world.stop()


@pytest.mark.parametrize("delivery", [ONCE, "at least once"])
async def test_a_commit_past_a_marker_does_not_go_back(delivery: str) -> None:
    """A client that forgets for a while where it reads, as after a broker's restart, does not rewind the group."""
    world = await World.make()
    world.put("a")
    await world.start(Script(), stage())
    reader = await world.start(Script(), World.stage(OUT, output=END, name="reader", delivery=delivery))
    await world.until(lambda: world.at("t.out", 0, "reader") == 2)
    reader.consumer._inner._reached.clear()
    await world.settle()
    assert world.at("t.out", 0, "reader") == 2
    await world.stop()
    assert world.at("t.out", 0, "reader") == 2


async def test_a_record_that_leads_to_nothing_is_committed() -> None:
    """Offsets without records are a transaction too; nothing is committed outside of one."""
    world = await World.make()
    world.put("a")
    run = await world.start(Script(a=[[]]), stage())
    await world.until(lambda: world.at() == 1)
    assert world.records("t.out") == []
    await world.stop()
    assert [offsets for _, offsets in run.consumer.commits if offsets] == []


@pytest.mark.usefixtures("unhurried")
async def test_every_end_goes_through_a_transaction() -> None:
    """Failure events, retry copies and dead letters are written with their offsets, and none is there twice."""
    world = await World.make()
    script = Script(fail=[Fail("no")], reject=[Reject("no")], again=[Retry("later")], dead=[Retry("x")] * 3)
    run = await world.start(script, stage())
    run.transactions.faults.extend(["abort", "unheard", "unheard abort"])
    world.put("fail", "reject", "again", "dead", key=None)
    await world.until(lambda: world.at() == 4 and len(world.dead()) == 2 and "again!" in world.texts())
    await world.settle(5)
    assert world.tiers() == {"10s": 2, "1m": 1, "10m": 0}
    assert sorted(failure.recoverable for failure in world.failures()) == [False, True, True]
    assert world.texts() == ["again!"]
    for topic in run.runner.plan.topics:
        assert set((await world.broker.lag("t.work", [topic])).values()) == {0}
    await world.stop()
    assert run.producer.sent == []


@pytest.mark.parametrize("fault", ["abort", "unheard", "unheard abort"])
async def test_a_failed_transaction_repeats_nothing(fault: Fault) -> None:
    """Aborted, or committed or aborted without an answer: each output is there once, and the order is kept."""
    world = await slow_world(transact=0.02)
    async with watched(world):
        run = await world.start(Script(), stage())
        run.transactions.faults.extend([fault, fault, None, fault])
        for number in range(30):
            world.put(str(number))
            await asyncio.sleep(0.05)
        await finish(world, 30)
    assert world.texts() == [f"{number}!" for number in range(30)]


@pytest.mark.parametrize("transact", [0.0, 0.05, 3.0])
async def test_a_second_worker_repeats_nothing(transact: float) -> None:
    """What is done is committed as a partition leaves, if that is quick; otherwise its next owner waits for the end."""
    world = await slow_world(2, transact)
    for number in range(80):
        world.put(f"{number}", key=b"%d" % number, partition=number % 2)
    async with watched(world):
        await world.start(Script(0.05), stage(concurrency=4), tiers=False)
        await asyncio.sleep(0.73)
        following = await world.start(Script(0.05), stage(concurrency=4), tiers=False)
        await finish(world, 80)
    assert following.handler.calls


async def test_a_revocation_does_not_wait_for_a_broker_that_aborts_again_and_again() -> None:
    """After a few tries the partitions leave, and what was done is done again by their next owner, once."""
    world = await World.make(partitions=2)
    for number in range(20):
        world.put(f"{number}", key=None, partition=number % 2)
    async with watched(world):
        first = await world.start(Script(0.01), stage(), tiers=False)
        first.transactions.faults.extend(["abort"] * 8)
        await world.until(lambda: len(first.handler.done) == 20)
        following = await world.start(Script(), stage(), tiers=False)
        await finish(world, 20)
    assert len(following.handler.calls) == 10


async def test_what_is_done_at_a_revocation_is_not_done_again() -> None:
    """A quick broker is given all that is done before a partition leaves."""
    world = await World.make(partitions=2)
    for number in range(40):
        world.put(f"{number}", key=None, partition=number % 2)
    first = await world.start(Script(0.001), stage(concurrency=40), tiers=False)
    await world.until(lambda: len(first.handler.done) == 40)
    following = await world.start(Script(), stage(), tiers=False)
    await finish(world, 40)
    assert following.handler.calls == []


async def test_a_zombie_commits_nothing() -> None:
    """A worker that was put out of its group while it stood still is refused, and its records are written by others."""
    world = await slow_world(transact=0.05)
    world.put(*map(str, range(20)), key=None)
    async with watched(world):
        zombie = await world.start(Script(0.3), stage(concurrency=2), patience=1.0)
        await world.until(lambda: "3" in zombie.handler.texts)
        zombie.consumer.stall = 20.0
        await world.start(Script(0.1), stage(concurrency=2))
        await finish(world, 20)


async def test_killed_while_a_transaction_is_open() -> None:
    """The next owner waits until the broker has aborted what nobody ends, and repeats it."""
    world = await slow_world(transact=1.0)
    world.put("a", "b")
    async with watched(world):
        first = await world.start(Script(), stage())
        await asyncio.sleep(2.6)
        await first.kill()
        assert world.records("t.out") == []
        await world.start(Script(), stage())
        await finish(world, 2)


async def test_a_drain_commits_the_last_transaction() -> None:
    """What the last handlers lead to is committed before the worker leaves, though a transaction fails meanwhile."""
    world = await slow_world(transact=0.3)
    world.put(*map(str, range(5)), key=None)
    run = await world.start(Script(2.0), stage())
    await world.until(lambda: "4" in run.handler.texts)
    run.transactions.faults.extend(["abort", "unheard abort"])
    await run.stop()
    assert (world.at(), len(answered(world))) == (5, 5)


async def test_a_drain_ends_where_transactions_do_not() -> None:
    """With a broker that does not answer the worker leaves after its deadline, and nothing is committed."""
    world = await slow_world(transact=1_000.0)
    world.put("a")
    run = await world.start(Script(), stage(), drain_seconds=2.0)
    await world.until(lambda: "a" in run.handler.texts)
    start = asyncio.get_running_loop().time()
    await run.stop()
    assert asyncio.get_running_loop().time() - start < 4
    assert (world.at(), world.texts()) == (None, [])


async def test_an_output_that_is_too_large_is_a_dead_letter() -> None:
    """A refused output takes the others of its transaction back with it; they are written again, and it is buried."""
    world = await World.make()
    world.put("a", "b", "c", key=None)
    run = await world.start(Script(b=[[Note(text="x" * 1_200_000), Note(text="with it")]]), stage())
    await world.until(lambda: world.at() == 3)
    assert (world.texts(), [record.value for record in world.dead()]) == (
        ["a!", "c!"],
        [world.records("t.in")[1].value],
    )
    await run.stop()


async def test_a_dead_letter_is_written_without_a_failure_event_that_is_too_large() -> None:
    """The dead letter counts all the same; what was refused is reported."""
    world = World()
    await world.create("t.in", "t.out", max_message_bytes="2097152")
    await world.create("t.failures", max_message_bytes="900")
    run = await world.start(Script(a=[Reject("x" * 600)]), stage())
    world.put("a", key=b"k" * 600)
    await world.until(lambda: world.at() == 1)
    assert (len(world.dead()), world.failures()) == (1, [])
    await run.stop()


async def test_what_no_topic_takes_halts_the_stage() -> None:
    """A missing output topic halts the stage; nothing of the transaction is there, and nothing was committed."""
    world = World()
    await world.create("t.in", "t.failures")
    run = await world.start(Script(), stage())
    world.put("a")
    halt = await run.halted()
    assert "refuses what record t.in/0/0 leads to" in halt.reason
    assert world.at() is None


async def test_a_full_transaction_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as much waiting as is allowed nothing waits for the next turn, and items keep their room in the window."""
    monkeypatch.setattr(once, "MOST_RECORDS", 10)
    world = await slow_world(transact=0.01)
    world.put(*map(str, range(300)), key=None)
    async with watched(world):
        await world.start(Script(lambda text: int(text) / 1000), stage(concurrency=300))
        await finish(world, 300)
    assert world.broker.range(Partition("t.out", 0))[1] >= 310


async def test_a_map_that_cannot_say_all_holds_its_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be left out of the metadata is not written either, until the map is shorter."""
    monkeypatch.setattr(once, "SURE_RANGES", 0)
    monkeypatch.setattr(once, "says", lambda commit, settled: len(settled) < 2)
    world = await World.make()
    release = asyncio.Event()

    async def stuck() -> None:
        await release.wait()

    async with watched(world):
        await world.start(Script(a=[stuck], c=[stuck]), stage())
        world.put("a", "b", "c", "d", key=None)
        await world.settle(3)
        assert committed(world) == set()
        release.set()
        await finish(world, 4)


class _Broken:
    """Transactions that nobody may use."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def begin(self, batch: Batch, ended: Ended) -> None:
        asyncio.get_running_loop().call_soon(ended, self.error)

    def wait(self, seconds: float) -> bool:
        return True


@pytest.mark.parametrize("error", [Halt("not allowed"), RuntimeError("a bug")])
async def test_transactions_that_cannot_go_on_halt_the_stage(error: Exception) -> None:
    """A verdict, or an error that nobody expects, stops the stage with its reason."""
    world = await World.make()
    run = await world.start(Script(), stage(), transactions=_Broken(error), drain_seconds=1.0)
    world.put("a")
    assert str(error) in (await run.halted()).reason
    assert world.at() is None


async def test_a_stage_without_transactions_is_refused() -> None:
    """An exactly-once stage is not run without what makes it one."""
    world = await World.make()
    with pytest.raises(ValueError, match="needs transactions"):
        await world.make_run(Script(), stage(), transactions=None)

"""The runner on its straight way: records in, outputs out, offsets committed."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core import headers as h
from pipeline.core.job import child_id
from pipeline.core.record import Partition
from tests.runtime.world import END, IN, LANED, OPEN, OUT, Note, Script, World, header, ids

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.virtual
async def test_a_chain_of_two_stages_carries_every_record_to_its_end() -> None:
    """What goes in comes out at the far end, once, in the order of its key, and both groups stand at the end."""
    world = await World.make(partitions=3)
    await world.start(Script(), world.stage(name="first"))
    await world.start(Script(), world.stage(OUT, output=END, name="second"))
    for number in range(3):
        world.put("a", "b", "c", key=b"k%d" % number, partition=number)
    await world.until(lambda: len(world.records("t.end")) == 9)
    await world.stop()
    assert world.texts("t.end") == ["a!!", "b!!", "c!!"] * 3
    assert [world.at("t.in", 1, "first"), world.at("t.out", 1, "second")] == [3, 3]


@pytest.mark.virtual
async def test_an_output_keeps_partition_key_trace_and_job() -> None:
    """A handler returns a payload only: everything else about the output comes from the record it answers."""
    world = await World.make(partitions=5)
    await world.start(Script())
    told = {h.CE_ID: "event-1", h.CE_SUBJECT: "job-1", h.TRACEPARENT: TRACE, h.TENANT: "acme", h.HOPS: "3", "mine": "x"}
    world.put("a", key=b"some key", partition=4, headers=told)
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    (output,) = world.records("t.out")
    assert (output.partition, output.key) == (4, b"some key")
    assert header(output, h.CE_SUBJECT) == "job-1"
    assert header(output, h.CE_ID) == child_id("event-1", "work", 0, 0)
    assert header(output, h.PARENT) == "event-1"
    assert header(output, h.SOURCE) == "t.in/4/0"
    assert header(output, h.OUTPUT) == "0/1"
    assert header(output, h.TENANT) == "acme"
    assert header(output, h.HOPS) == "4"
    assert header(output, "mine") == "x"
    assert (header(output, h.TRACEPARENT) or "").split("-")[1] == TRACE.split("-")[1]


@pytest.mark.virtual
async def test_a_record_without_a_key_is_ordered_by_its_job() -> None:
    """A null key becomes the job's id on the output, and keeps its partition all the same."""
    world = await World.make(partitions=3)
    await world.start(Script())
    world.put("a", key=None, partition=2, headers={h.CE_ID: "e", h.CE_SUBJECT: "job-1"})
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    (output,) = world.records("t.out")
    assert (output.partition, output.key) == (2, b"job-1")


@pytest.mark.virtual
async def test_with_repartition_the_key_chooses_the_partition() -> None:
    """Outputs of one key meet in one partition, wherever their sources stood."""
    world = await World.make(partitions=7)
    await world.start(Script(), world.stage(OPEN, repartition=True))
    for number in range(7):
        world.put(f"{number}", key=b"conversation", topic="t.open", partition=number)
    await world.until(lambda: len(world.records("t.out")) == 7)
    await world.stop()
    assert len({record.partition for record in world.records("t.out")}) == 1


@pytest.mark.virtual
async def test_outputs_are_numbered_and_their_ids_are_the_same_in_every_run() -> None:
    """Two worlds, one input: equal ids, parents and numbers for each of several outputs."""
    seen = []
    for _ in range(2):
        world = await World.make()
        await world.start(Script(a=[[Note(text="x"), Note(text="y")]]))
        world.put("a", headers={h.CE_ID: "e"})
        await world.until(lambda here=world: len(here.records("t.out")) == 2)  # type: ignore[misc]  # bound early
        await world.stop()
        seen.append(ids(world.records("t.out")))
        assert [header(record, h.OUTPUT) for record in world.records("t.out")] == ["0/2", "1/2"]
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 2


@pytest.mark.virtual
async def test_a_handler_that_returns_nothing_settles_its_record() -> None:
    """A sink owes nothing: its record is done when the handler is."""
    world = await World.make()
    await world.start(Script(a=[[]]), world.stage(output=None))
    world.put("a")
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert world.metric("records_settled_total", end="nothing") == 1


@pytest.mark.virtual
@pytest.mark.parametrize("lane, topic", [("batch", "t.laned.batch"), (None, "t.laned.standard")])
async def test_an_output_to_a_laned_topic_follows_its_job(lane: str | None, topic: str) -> None:
    """The lane of the job picks the topic; a job without one goes to `standard`."""
    world = await World.make()
    await world.start(Script(), world.stage(output=LANED))
    world.put("a", headers={h.LANE: lane} if lane else {})
    await world.until(lambda: world.records(topic))
    await world.stop()
    assert world.texts(topic) == ["a!"]


@pytest.mark.virtual
async def test_a_stage_that_reads_two_topics_knows_them_apart() -> None:
    """Each record is decoded as what its own topic carries."""
    world = await World.make()
    run = await world.start(Script(), world.stage(IN, END))
    world.put("a")
    world.put("b", topic="t.end")
    await world.until(lambda: len(world.records("t.out")) == 2)
    await world.stop()
    assert sorted(run.handler.texts) == ["a", "b"]
    assert [world.at("t.in"), world.at("t.end")] == [1, 1]


@pytest.mark.virtual
async def test_nothing_is_committed_before_the_broker_has_acknowledged() -> None:
    """The output is written at once but acknowledged after 5 s: until then the source stays uncommitted."""
    world = await World.make()
    run = await world.start(Script())
    run.producer.delay = 5.0
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await asyncio.sleep(4.5)
    assert world.at() is None
    await asyncio.sleep(1.5)
    assert world.at() == 1
    await world.stop()


@pytest.mark.virtual
async def test_the_frontier_waits_for_the_slowest_of_the_first() -> None:
    """Later records that are done do not move the offset past an earlier one that is not."""
    world = await World.make()
    await world.start(Script(lambda text: 10.0 if text == "slow" else 0.1))
    world.put("first", key=b"0")
    world.put("slow", key=b"1")
    for number in range(5):
        world.put(f"quick{number}", key=b"q%d" % number)
    await asyncio.sleep(8)
    assert len(world.records("t.out")) == 6
    assert world.at() == 1
    await asyncio.sleep(3)
    assert world.at() == 7
    await world.stop()


@pytest.mark.virtual
async def test_after_a_crash_exactly_the_unsettled_come_again() -> None:
    """The next worker handles what was not settled, on either side of what was, and nothing else."""
    world = await World.make()
    run = await world.start(Script(lambda text: 100.0 if text == "stuck" else 0.1))
    world.put("a", key=b"a")
    world.put("stuck", key=b"s")
    world.put("b", key=b"b")
    await asyncio.sleep(5)
    assert world.at() == 1
    await run.kill()
    again = await world.start(Script())
    await world.until(lambda: world.at() == 3)
    await world.stop()
    assert again.handler.texts == ["stuck"]
    written = dict(zip(ids(world.records("t.out")), world.texts(), strict=True))
    assert sorted(written.values()) == ["a!", "b!", "stuck!"]


@pytest.mark.virtual
async def test_a_restart_after_a_clean_stop_repeats_nothing() -> None:
    """What was settled before a stop is committed by it."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a", "b", "c")
    await world.until(lambda: len(world.records("t.out")) == 3)
    await run.stop()
    again = await world.start(Script())
    world.put("d")
    await world.until(lambda: world.at() == 4)
    await world.stop()
    assert again.handler.texts == ["d"]


@pytest.mark.virtual
async def test_reading_begins_where_the_log_begins_and_lag_reaches_zero() -> None:
    """A group that never committed starts at the oldest record that is kept, and ends without lag."""
    world = await World.make()
    world.put("gone", "kept")
    world.broker.trim(Partition("t.in", 0), 1)
    await world.start(Script())
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert world.texts() == ["kept!"]
    assert await world.broker.lag("t.work", ["t.in"]) == {Partition("t.in", 0): 0}


@pytest.mark.virtual
async def test_two_workers_share_a_group() -> None:
    """Each handles the records of its own partitions; together they handle all, once."""
    world = await World.make(partitions=4)
    runs = [await world.start(Script(1.0), tiers=False) for _ in range(2)]
    await world.settle()
    for number in range(40):
        world.put(str(number), key=b"%d" % number, partition=number % 4)
    await world.until(lambda: len(world.records("t.out")) == 40)
    await world.stop()
    first, second = (set(run.handler.texts) for run in runs)
    assert first
    assert second
    assert not first & second
    assert len(first | second) == 40
    assert [world.at("t.in", number) for number in range(4)] == [10] * 4


@pytest.mark.virtual
async def test_a_killed_worker_is_replaced_and_repeats_have_equal_ids() -> None:
    """What a killed worker had written but not committed is written again under the same ids; nothing is lost."""
    world = await World.make(partitions=4)
    runs = [await world.start(Script(lambda text: int(text) % 7 / 3), tiers=False) for _ in range(2)]
    await world.settle()
    for number in range(60):
        world.put(str(number), key=b"%d" % (number % 12), partition=number % 4)
    runs[0].consumer.loses_commits = True
    await asyncio.sleep(1.5)
    await runs[0].kill()
    await world.until(lambda: sum(world.at("t.in", number) or 0 for number in range(4)) == 60)
    await world.stop()
    outputs = world.records("t.out")
    by_id = dict(zip(ids(outputs), world.texts(), strict=True))
    assert sorted(by_id.values()) == sorted(f"{number}!" for number in range(60))
    assert len(outputs) > 60


@pytest.mark.virtual
async def test_what_it_says_of_itself() -> None:
    """The metrics count what was taken, tried, settled and committed; `ready` follows state and connection."""
    world = await World.make()
    run = await world.start(Script())
    assert not run.runner.ready()
    world.put("a", "b")
    await world.until(lambda: world.at() == 2)
    assert run.runner.ready()
    assert run.runner.reason == ""
    run.consumer.up = False
    assert not run.runner.ready()
    await world.stop()
    assert not run.runner.ready()
    assert run.runner.state == "stopped"
    assert world.metric("records_taken_total") == 2
    assert world.metric("tries_total", outcome="ok") == 2
    assert world.metric("records_settled_total", end="output") == 2
    assert world.metric("commits_total") >= 1
    assert world.metric("handling_seconds_count") == 2
    assert world.metric("handlers_running") == 0
    assert world.metric("window_records") == 0
    assert world.metric("stage_halted") == 0


@pytest.mark.virtual
async def test_a_stop_before_the_start_is_a_start_and_a_stop() -> None:
    """A runner that is stopped before it ran joins nothing it would not leave."""
    world = await World.make()
    world.put("a")
    run = await world.start(Script())
    run.runner.stop()
    await run.task
    assert run.runner.state == "stopped"
    assert run.handler.texts == []

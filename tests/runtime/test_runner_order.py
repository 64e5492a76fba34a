"""Order and concurrency: keys in line, many at once, and nobody held up by somebody else's trouble."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.record import Partition, Record
from pipeline.devkit.clock import wall
from pipeline.runtime.runner import FETCH_RECORDS
from pipeline.runtime.window import limits_for
from tests.examples import at_most
from tests.runtime.meddling import Bottomless
from tests.runtime.world import IN, LANED, Note, Script, World


def by_key(texts: list[str]) -> dict[str, list[int]]:
    """Sort `<key>:<number>` texts by key, in the order they have."""
    sorted_: dict[str, list[int]] = defaultdict(list)
    for text in texts:
        key, _, number = text.rstrip("!").partition(":")
        sorted_[key].append(int(number))
    return sorted_


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@settings(max_examples=at_most(15))
@given(
    keys=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    times=st.lists(st.floats(0, 3), min_size=7, max_size=7),
    concurrency=st.integers(1, 8),
)
async def test_records_of_a_key_run_in_order_and_one_at_a_time(
    keys: list[int], times: list[float], concurrency: int
) -> None:
    """For any mix of keys, times and slots: per key in order, never two at once; the cap holds; all are done."""
    world = await World.make(partitions=2)
    run = await world.start(Script(lambda text: times[sum(map(ord, text)) % 7]), World.stage(concurrency=concurrency))
    counts: dict[int, int] = defaultdict(int)
    for key in keys:
        world.put(f"{key}:{counts[key]}", key=b"%d" % key, partition=key % 2)
        counts[key] += 1
    await world.until(lambda: len(world.records("t.out")) == len(keys))
    await world.stop()
    assert run.handler.overlaps == []
    assert run.handler.most <= concurrency
    expected = {str(key): list(range(count)) for key, count in counts.items()}
    assert by_key(run.handler.texts) == expected
    assert by_key(world.texts()) == expected
    assert sum(world.at("t.in", number) or 0 for number in range(2)) == len(keys)


@pytest.mark.virtual
@pytest.mark.parametrize("concurrency, keys", [(64, 200), (64, 20), (150, 100)])
async def test_as_many_run_at_once_as_slots_and_keys_allow(concurrency: int, keys: int) -> None:
    """400 records over one partition: min(slots, keys) handlers in flight throughout, in the order of their keys."""
    world = await World.make()
    run = await world.start(Script(1.0), World.stage(concurrency=concurrency))
    for number in range(400):
        world.put(f"{number % keys}:{number // keys}", key=b"%d" % (number % keys))
    await world.until(lambda: len(world.records("t.out")) == 400)
    await world.stop()
    cap = min(concurrency, keys)
    at_once = {round(time, 3): level for time, level in run.handler.levels}
    busy = [level for time, level in at_once.items() if time < 400 / cap - 2]
    assert run.handler.most == cap
    assert set(busy) == {cap}
    assert run.handler.overlaps == []
    assert max(at_once) <= -(-400 // cap) * 1.05 + 0.5


@pytest.mark.virtual
async def test_null_keys_ask_for_no_order() -> None:
    """Records without a key all run side by side."""
    world = await World.make()
    run = await world.start(Script(1.0), World.stage(concurrency=10))
    world.put(*(f"{number}" for number in range(30)), key=None)
    await world.until(lambda: world.at() == 30)
    await world.stop()
    assert run.handler.most == 10


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_one_stuck_key_delays_only_itself() -> None:
    """While one record hangs, all other keys of its partition go on at full speed."""
    world = await World.make()
    run = await world.start(Script(lambda text: 50.0 if text == "s:0" else 0.1), World.stage(concurrency=4))
    world.put("s:0", "s:1", key=b"s")
    for number in range(300):
        world.put(f"{number}:0", key=b"%d" % number)
    await asyncio.sleep(300 * 0.1 / 3 * 1.1 + 1)
    assert len(world.records("t.out")) == 300
    assert "s:1" not in run.handler.texts
    await world.until(lambda: world.at() == 302)
    await world.stop()
    assert run.handler.texts[-1] == "s:1"


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_hot_key_that_fills_its_share_pauses_only_its_partition() -> None:
    """Behind a stuck key at most a quarter of the window piles up; other partitions never stop, and it heals."""
    world = await World.make(partitions=2)
    run = await world.start(
        Script(lambda text: 60.0 if text == "hot:0" else 0.02), World.stage(concurrency=8, timeout=600)
    )
    limits = limits_for(8)
    for number in range(500):
        world.put(f"hot:{number}", key=b"hot")
        if number % 4 == 0:
            world.put(f"a{number}:0", key=b"a%d" % number)
            world.put(f"b{number}:0", key=b"b%d" % number, partition=1)
    await world.until(lambda: world.at("t.in", 1) == 125, seconds=40)
    assert run.consumer.paused("t.in", 0)
    assert not run.consumer.paused("t.in", 1)
    assert world.metric("window_records") <= limits.key_share + FETCH_RECORDS
    await world.until(lambda: world.at("t.in", 0) == 625)
    await world.stop()
    assert by_key(run.handler.texts)["hot"] == list(range(500))


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_jam_is_not_cleared_by_other_keys() -> None:
    """Records of other keys that are done do not let the partition of a stuck key flow again."""
    world = await World.make()
    run = await world.start(
        Script(lambda text: 100.0 if text in {"x:0", "y:0"} else 0.02), World.stage(concurrency=8, timeout=600)
    )
    for number in range(900):
        key = ("x", "y", f"z{number}")[number % 3]
        world.put(f"{key}:{number // 3}", key=key.encode())
    await asyncio.sleep(50)
    wishes = [pause for _, name, pause in run.consumer.pauses if name == ("t.in", 0)]
    assert wishes.count(True) <= 6
    assert run.consumer.paused("t.in")
    assert world.metric("window_records") < 2 * FETCH_RECORDS
    await world.until(lambda: world.at() == 900)
    await world.stop()


@pytest.mark.virtual
async def test_interactive_work_is_not_stuck_behind_10_000_batch_records() -> None:
    """A record on the interactive lane gets one of the next slots, whatever waits on the batch lane."""
    world = await World.make()
    run = await world.start(Script(1.0), World.stage(LANED, concurrency=8))
    for number in range(10_000):
        world.put(f"b{number}", key=b"%d" % number, topic="t.laned.batch")
    await asyncio.sleep(5.5)
    before = wall()
    world.put("urgent", topic="t.laned.interactive")
    await world.until(lambda: "urgent!" in world.texts("t.out")[-20:], seconds=5)
    (began,) = run.handler.times("urgent")
    assert began - before <= 1.1
    run.runner.stop()
    await run.task


@pytest.mark.virtual
async def test_lanes_with_work_share_the_slots_eight_to_four_to_one() -> None:
    """With a backlog on every lane each gets its weight; none starves."""
    world = await World.make()
    run = await world.start(Script(1.0), World.stage(LANED, concurrency=13))
    for lane in ("interactive", "standard", "batch"):
        for number in range(300):
            world.put(f"{lane}:{number}", key=b"%s%d" % (lane.encode(), number), topic=f"t.laned.{lane}")
    await asyncio.sleep(20.5)
    shares = {key: len(numbers) for key, numbers in by_key(run.handler.done).items()}
    total = sum(shares.values())
    assert total == pytest.approx(260, abs=13)
    assert shares["interactive"] / total == pytest.approx(8 / 13, abs=0.05)
    assert shares["standard"] / total == pytest.approx(4 / 13, abs=0.05)
    assert shares["batch"] / total == pytest.approx(1 / 13, abs=0.05)
    run.runner.stop()
    await run.task


def deep(offset: int, size: int = 10, keys: int = 1_000_000) -> Record:
    """Make the record at `offset` of a bottomless partition."""
    value = Note(text="x" * size).model_dump_json().encode()
    return Record("t.in", 0, offset, b"%d" % (offset % keys), value, (), 1)


@pytest.mark.virtual
async def test_the_window_is_bounded_before_a_million_records() -> None:
    """However much is waiting, what is taken stays within the window and one fetch; and the slots stay full."""
    name = Partition("t.in", 0)
    world = await World.make(broker=Bottomless(wall, name, 1_000_000, deep))
    run = await world.start(Script(0.5), World.stage(concurrency=16))
    highest = 0.0
    for _ in range(400):
        await asyncio.sleep(0.05)
        highest = max(highest, world.metric("records_taken_total") - len(run.handler.done))
    assert 16 < highest <= limits_for(16).records + FETCH_RECORDS
    assert len(run.handler.done) >= 0.95 * 16 * 20 / 0.5
    run.runner.stop()
    await run.task


@pytest.mark.virtual
async def test_quick_handlers_keep_their_slots_busy() -> None:
    """With handlers of 10 ms the pauses of a full window cost next to nothing: it opens as soon as it is half empty."""
    name = Partition("t.in", 0)
    world = await World.make(broker=Bottomless(wall, name, 1_000_000, deep))
    run = await world.start(Script(0.01), World.stage(concurrency=8))
    await asyncio.sleep(1)
    assert len(run.handler.done) >= 0.95 * 8 * 1 / 0.01
    await run.kill()


@pytest.mark.virtual
async def test_the_window_is_bounded_in_bytes() -> None:
    """Records of 200 kB fill the window by their weight long before their number does."""
    name, size = Partition("t.in", 0), 200_000
    world = await World.make(broker=Bottomless(wall, name, 1_000_000, lambda offset: deep(offset, size, keys=60)))
    run = await world.start(Script(1_000.0), World.stage(IN, concurrency=64))
    await asyncio.sleep(5)
    assert run.consumer.paused("t.in")
    assert 0 < world.metric("records_taken_total") * size <= limits_for(64).bytes + FETCH_RECORDS * size
    await run.kill()

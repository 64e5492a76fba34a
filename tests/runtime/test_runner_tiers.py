"""Waiting: in place or through the tiers, never early, and never in anybody's way."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Retry
from pipeline.core.record import Outgoing, Partition
from pipeline.core.retry import TIERS
from pipeline.devkit.clock import EPOCH, VirtualLoop, wall
from pipeline.runtime.runner import FETCH_RECORDS
from pipeline.runtime.window import limits_for
from tests.runtime.world import Note, Script, World, header

TENS, MINUTE, TEN_MINUTES = TIERS


def virtual_loop() -> VirtualLoop:
    """Return the running virtual loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_short_deferral_waits_in_place_and_keeps_the_order_of_its_key() -> None:
    """Up to 30 s: no copy, no attempt, no slot; others go on, the next of the key does not."""
    world = await World.make()
    run = await world.start(Script(a=[Defer("later", until=EPOCH + 30)]), world.stage(concurrency=1))
    world.put("a", "b")
    world.put("other", key=b"o")
    await world.until(lambda: world.at() == 3)
    await world.stop()
    assert run.handler.texts == ["a", "other", "a", "b"]
    assert EPOCH + 30 <= run.handler.times("a")[1] < EPOCH + 30.2
    assert [call.attempt for call in run.handler.calls] == [1] * 4
    assert run.handler.calls[2].event.tries.deferrals == 1
    assert sum(world.tiers().values()) == 0


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_deferrals_in_place_add_up() -> None:
    """Each deferral is counted, in place too, and none is an attempt."""
    world = await World.make()
    later = [Defer("later", until=EPOCH + seconds) for seconds in (5, 10, 15)]
    run = await world.start(Script(a=[*later, Retry("now ours")]))
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert [call.event.tries.deferrals for call in run.handler.calls] == [0, 1, 2, 3, 3]
    (copy,) = world.records("t.work.retry.10s")
    assert (header(copy, h.ATTEMPTS), header(copy, h.DEFERRALS)) == ("1", "3")


@pytest.mark.virtual
async def test_a_deferral_until_a_time_that_has_passed_does_not_spin() -> None:
    """A handler that says "not before now" for ever is asked ten times a second, not as fast as the machine can."""
    world = await World.make()
    run = await world.start(Script(a=[Defer("now", until=0.0) for _ in range(1_000)]))
    world.put("a")
    await asyncio.sleep(5)
    await world.stop()
    assert 30 <= len(run.handler.calls) <= 60


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_at_most_a_quarter_of_the_window_waits_in_place() -> None:
    """What is more goes to the tiers, short as its wait may be."""
    world = await World.make()
    answers = {f"n{number}": [Defer("later", until=EPOCH + 25)] for number in range(200)}
    run = await world.start(Script(**answers), world.stage(concurrency=8))
    for text in answers:
        world.put(text, key=text.encode())
    await asyncio.sleep(5)
    share = limits_for(8).in_place_share
    assert world.metric("waiting_records") == share
    assert world.tiers() == {"10s": 200 - share, "1m": 0, "10m": 0}
    await world.until(lambda: len(world.records("t.out")) == 200)
    await world.stop()
    assert all(run.handler.times(text)[1] >= EPOCH + 25 for text in answers)


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_long_deferral_walks_down_the_tiers() -> None:
    """672 s: ten minutes, one minute, ten seconds, the rest in place; one deferral, no attempt, never early."""
    world = await World.make(partitions=2)
    run = await world.start(Script(a=[Defer("later", until=EPOCH + 672)]))
    world.put("a", partition=1)
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert world.tiers() == {"10s": 1, "1m": 1, "10m": 1}
    assert EPOCH + 672 <= run.handler.times("a")[1] < EPOCH + 673.5
    copies = [world.records(f"t.work.retry.{tier.name}")[0] for tier in (TEN_MINUTES, MINUTE, TENS)]
    assert {copy.partition for copy in copies} == {1}
    assert {header(copy, h.DEFERRALS) for copy in copies} == {"1"}
    assert {header(copy, h.ATTEMPTS) for copy in copies} == {"0"}
    assert {header(copy, h.NOT_BEFORE) for copy in copies} == {str(int((EPOCH + 672) * 1000))}
    assert len({header(copy, h.ORIGINAL) for copy in copies}) == 1
    assert [round(later - sooner, 1) for sooner, later in pairwise(copy.timestamp_ms / 1000 for copy in copies)] == [
        pytest.approx(600, abs=0.3),
        pytest.approx(60, abs=0.3),
    ]
    assert world.metric("records_settled_total", end="moved") == 2
    assert world.metric("records_settled_total", end="retry") == 1


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_deferral_of_hours_is_kept() -> None:
    """Five hours pass through the ten minute tier, thirty times, and end on time."""
    world = await World.make()
    run = await world.start(Script(a=[Defer("tomorrow", until=EPOCH + 5 * 3_600)]))
    world.put("a")
    await world.until(lambda: world.records("t.out"), seconds=6 * 3_600)
    await world.stop()
    assert EPOCH + 18_000 <= run.handler.times("a")[1] < EPOCH + 18_002
    assert world.tiers()["10m"] >= 29


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_many_waits_end_never_early_and_hardly_late() -> None:
    """Deferrals of all lengths at once, over several partitions: each tried again at its time, none before."""
    world = await World.make(partitions=3)
    untils = {f"n{number}": EPOCH + 3 + number * 3.3 for number in range(60)}
    run = await world.start(Script(**{text: [Defer("later", until=until)] for text, until in untils.items()}))
    for number, text in enumerate(untils):
        world.put(text, key=text.encode(), partition=number % 3)
    await world.until(lambda: len(world.records("t.out")) == len(untils))
    await world.stop()
    late = {text: run.handler.times(text)[1] - until for text, until in untils.items()}
    assert min(late.values()) >= 0
    assert max(late.values()) <= 2


@pytest.mark.virtual
async def test_the_long_tier_does_not_hold_up_the_short_one() -> None:
    """2,000 records that wait for ten minutes leave room for one that waits for ten seconds."""
    world = await World.make(partitions=2)
    run = await world.start(Script(a=[Retry("later")]), world.stage(concurrency=4))
    headers = {h.NOT_BEFORE: str(int((EPOCH + 600) * 1000)), h.ORIGINAL: "t.in/0/0/1"}
    for number in range(2_000):
        world.put("long", key=b"%d" % number, topic="t.work.retry.10m", partition=number % 2, headers=headers)
    world.put("a")
    await world.until(lambda: world.records("t.out"), seconds=100)
    assert world.texts() == ["a!"]
    assert run.handler.times("a")[1] - run.handler.times("a")[0] < 12.5
    assert run.consumer.paused("t.work.retry.10m", 0)
    await run.kill()


@pytest.mark.virtual
async def test_what_is_due_in_the_tiers_fills_their_window_like_any_work() -> None:
    """Thousands of retries that fall due together are taken as there is room, not all at once."""
    world = await World.make()
    await world.create("t.work.retry.10s")
    for number in range(2_000):
        world.put(f"n{number}", key=b"%d" % number, topic="t.work.retry.10s")
    await asyncio.sleep(20)
    run = await world.start(Script(1.0), world.stage(concurrency=4))
    await asyncio.sleep(5)
    assert run.consumer.paused("t.work.retry.10s")
    assert 0 < world.metric("window_records") <= limits_for(4).records + FETCH_RECORDS
    await run.kill()


@pytest.mark.virtual
async def test_a_tier_whose_head_is_not_due_is_paused_and_goes_on_by_itself() -> None:
    """While the head waits nothing is fetched behind it; when it is due, it and its followers go as each is due."""
    world = await World.make()
    run = await world.start(Script())
    for text in ("a", "b", "c"):
        world.put(text, key=text.encode(), topic="t.work.retry.10s")
        await asyncio.sleep(3)
    assert run.consumer.paused("t.work.retry.10s")
    await world.until(lambda: len(world.records("t.out")) == 3)
    await world.stop()
    for number, text in enumerate(("a", "b", "c")):
        (began,) = run.handler.times(text)
        assert EPOCH + 3 * number + 10 <= began < EPOCH + 3 * number + 10.3


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_clock_set_back_makes_nothing_early() -> None:
    """An hour back on the wall: what waits in a tier waits on until its time has come by that clock."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later")], b=[Defer("later", until=EPOCH + 20)]))
    world.put("a", key=b"a")
    world.put("b", key=b"b")
    await asyncio.sleep(5)
    virtual_loop().skew = -60
    await world.until(lambda: len(world.records("t.out")) == 2)
    await world.stop()
    assert run.handler.times("a")[1] >= EPOCH + 10
    assert run.handler.times("b")[1] >= EPOCH + 20


@pytest.mark.virtual
async def test_a_copy_without_a_timestamp_waits_its_whole_delay_and_no_longer() -> None:
    """Where the broker has no time for a record, its delay counts from when it was seen."""
    world = await World.make()
    await world.create("t.work.retry.10s")
    virtual_loop().skew = -EPOCH
    world.put("a", topic="t.work.retry.10s")
    virtual_loop().skew = 0
    (copy,) = world.records("t.work.retry.10s")
    assert copy.timestamp_ms == 0
    run = await world.start(Script())
    await world.until(lambda: world.records("t.out"), seconds=60)
    await world.stop()
    assert EPOCH + 10 <= run.handler.times("a")[0] < EPOCH + 11


@pytest.mark.virtual
async def test_a_copy_from_a_clock_ahead_waits_its_delay_once() -> None:
    """A writer whose clock is an hour ahead does not make its records wait for an hour."""
    world = await World.make()
    await world.create("t.work.retry.10s")
    virtual_loop().skew = 3_600
    world.put("a", topic="t.work.retry.10s")
    virtual_loop().skew = 0
    run = await world.start(Script())
    await world.until(lambda: world.records("t.out"), seconds=60)
    await world.stop()
    assert EPOCH + 10 <= run.handler.times("a")[0] < EPOCH + 11


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_copy_that_lost_its_headers_is_handled_as_an_original() -> None:
    """Somebody copied a record into a tier by hand, without our headers: after the delay it has its first try."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a", topic="t.work.retry.1m")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert [call.attempt for call in run.handler.calls] == [1]
    assert run.handler.times("a")[0] >= EPOCH + 60


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_tiers_survive_a_restart() -> None:
    """A record that waits when its worker is killed goes on waiting with the next one, and is not early there."""
    world = await World.make()
    first = await world.start(Script(a=[Defer("later", until=EPOCH + 75)]))
    world.put("a")
    await asyncio.sleep(30)
    await first.kill()
    second = await world.start(Script())
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    (began,) = second.handler.times("a")
    assert EPOCH + 75 <= began < EPOCH + 77
    assert first.handler.texts == ["a"]


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_tier_reaches_lag_zero() -> None:
    """When all that waited has gone on, the group stands at the end of every tier."""
    world = await World.make()
    run = await world.start(Script(a=[Defer("later", until=EPOCH + 75)]))
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    lag = await world.broker.lag("t.work", run.consumer.topics)
    assert [name for name, behind in lag.items() if behind] == []


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_move_that_is_not_acknowledged_is_not_committed() -> None:
    """A record leaves its tier only when the broker has its copy in the next one."""
    world = await World.make()
    run = await world.start(Script())
    run.producer.delay = 20.0
    headers = {h.NOT_BEFORE: str(int((EPOCH + 700) * 1000)), h.ORIGINAL: "t.in/0/0/1"}
    world.put("a", topic="t.work.retry.10s", headers=headers)
    await world.until(lambda: world.records("t.work.retry.10m"))
    await asyncio.sleep(15)
    assert world.at("t.work.retry.10s") is None
    await asyncio.sleep(10)
    assert world.at("t.work.retry.10s") == 1
    await run.kill()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_million_microseconds_of_rounding_make_nothing_early() -> None:
    """Times with odd fractions survive the headers: a header's millisecond is rounded up."""
    world = await World.make()
    untils = [EPOCH + 31 + number / 7 for number in range(20)]
    run = await world.start(Script(**{f"n{i}": [Defer("later", until=until)] for i, until in enumerate(untils)}))
    for i in range(20):
        world.put(f"n{i}", key=b"%d" % i)
    await world.until(lambda: len(world.records("t.out")) == 20)
    await world.stop()
    assert all(run.handler.times(f"n{i}")[1] >= until for i, until in enumerate(untils))


@pytest.mark.virtual
async def test_a_record_on_a_tier_knows_its_topic() -> None:
    """A copy's partition number and first position are told by its headers, whatever the tier's own offset."""
    world = await World.make(partitions=3)
    run = await world.start(Script(a=[Retry("later")]))
    world.put("before", "a", partition=2)
    await world.until(lambda: len(world.records("t.out")) == 2)
    await world.stop()
    event = run.handler.calls[-1].event
    assert str(event.origin.position) == "t.in/2/1"
    value = Note(text="a").model_dump_json().encode()
    copy = world.records("t.work.retry.10s")[0]
    assert Outgoing(copy.topic, copy.key, copy.value) == Outgoing("t.work.retry.10s", b"k", value)
    assert Partition(copy.topic, copy.partition) == ("t.work.retry.10s", 2)
    assert wall() < EPOCH + 20


@pytest.mark.virtual
async def test_the_tiers_drain_after_a_long_stop() -> None:
    """Ten hours later all that has fallen due meanwhile is handled, each once, and no tier has lag left."""
    world = await World.make(partitions=2)
    texts = [f"n{number}" for number in range(300)]
    waits = (Retry("later"), Defer("later", until=EPOCH + 90), Defer("later", until=EPOCH + 900))
    first = await world.start(Script(**{text: [waits[place % 3]] for place, text in enumerate(texts)}))
    for place, text in enumerate(texts):
        world.put(text, key=text.encode(), partition=place % 2)
    await world.until(lambda: sum(world.tiers().values()) == len(texts))
    await first.stop()
    await asyncio.sleep(36_000)
    again = await world.start(Script())
    await world.until(lambda: len(world.texts()) == len(texts))
    await world.settle()
    assert sorted(again.handler.texts) == sorted(texts)
    for tier in TIERS:
        topic = f"t.work.retry.{tier.name}"
        lag = await world.broker.lag("t.work", [topic])
        assert set(lag.values()) == {0}
    await world.stop()

"""A stage that reads topics of others beside its own: the in-memory broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.flood import FloodLimits
from pipeline.core.payloads import Nothing
from pipeline.core.record import Headers, Record
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage
from pipeline.devkit.clock import wall
from pipeline.runtime.attempt import Attempt
from pipeline.runtime.plan import plan
from tests.runtime.world import OPEN, Decoder, JsonCodec, Script, World, header

USERS, ORDERS = "db.public.users", "db.public.orders"
DEBEZIUM: Headers = (
    ("__debezium.newkey", b'{"id":"7"}'),
    ("__debezium.context.runId", "é".encode()),
    ("empty", None),
    ("twice", b"1"),
    ("twice", b"2"),
)


async def make(partitions: int = 3) -> World:
    """Make a world with two foreign topics; our own have one partition."""
    world = await World.make()
    await world.create(USERS, partitions=partitions)
    await world.create(ORDERS, partitions=1)
    return world


def stage(**policy: Any) -> Stage:
    """Declare a stage that may read foreign topics."""
    return World.stage(OPEN, output=None, repartition=True, **policy)


def same(record: Record, other: Record) -> bool:
    """Whether two records are the same, byte for byte, where they stand included."""
    return all(getattr(record, name) == getattr(other, name) for name in Record.__slots__)


def done(world: World, *places: tuple[str, int, int]) -> bool:
    """Whether the group stands at these offsets: topic, partition, offset."""
    return all(world.at(topic, number) == offset for topic, number, offset in places)


@pytest.mark.virtual
async def test_foreign_records_stand_beside_our_own() -> None:
    """Each is decoded by whom its topic belongs to, with its topic's name; the handler is called for both alike."""
    world = await make()
    decoder, script = Decoder(USERS, ORDERS), Script()
    ours = world.put("ours", topic="t.open")
    user = world.write(b"user", b'{"id":"7"}', USERS, 2, DEBEZIUM)
    order = world.write(b"order", None, ORDERS)
    script.answers = {text: [[]] for text in ("ours", "user", "order")}
    await world.start(script, stage(), foreign=decoder)
    await world.until(lambda: done(world, ("t.open", 0, len(ours)), (USERS, 2, 1), (ORDERS, 0, 1)))
    assert sorted(script.texts) == ["order", "ours", "user"]
    shown = {topic: record for record, topic in decoder.seen}
    assert set(shown) == {USERS, ORDERS}
    assert same(shown[USERS], user)
    assert same(shown[ORDERS], order)
    assert world.metric("records_settled_total", end="nothing") == 3
    assert set((await world.broker.lag("t.work", [USERS, ORDERS, "t.open"])).values()) == {0}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("delivery", ["at least once", "at most once", "exactly once"])
async def test_what_asks_for_nothing_is_settled_at_once(delivery: str) -> None:
    """No try, no handler, nothing written, an end and a count of its own; the frontier passes it, so lag reaches 0."""
    world = await make()
    decoder = Decoder(USERS, beat=[Nothing(why="a heartbeat")])
    for key in (b"k", None, b"k"):
        world.write(None, key, USERS, 1)
    world.write(b"beat", None, USERS, 0)
    world.write(b"a", b"k", USERS, 1)
    world.write(None, b"k", USERS, 1)
    script = Script(a=[[]])
    declared = World.stage(OPEN, repartition=True, delivery=delivery)
    run = await world.start(script, declared, foreign=decoder)
    await world.until(lambda: done(world, (USERS, 0, 1), (USERS, 1, 5)))
    await world.settle()
    assert script.texts == ["a"]
    assert world.metric("records_settled_total", end="ignored") == 5
    assert world.metric("records_settled_total", end="nothing") == 1
    assert world.metric("records_ignored_total", topic=USERS) == 5
    assert world.metric("tries_total", outcome="ok") == 1
    assert world.metric("window_records") == 0
    assert (world.failures(), world.dead(), world.tiers()) == ([], [], {"10s": 0, "1m": 0, "10m": 0})
    assert set((await world.broker.lag("t.work", run.runner.plan.topics)).values()) == {0}
    await world.stop()


@pytest.mark.virtual
async def test_what_asks_for_nothing_keeps_the_order_of_its_key() -> None:
    """It waits for its turn behind earlier records of its key, and the next one has its turn after it."""
    world = await make()
    script = Script(1.0, a=[[]], b=[[]])
    for value in (b"a", None, b"b"):
        world.write(value, b"k", USERS)
    decoder = Decoder(USERS)
    await world.start(script, stage(), foreign=decoder)
    await world.until(lambda: done(world, (USERS, 0, 3)))
    assert [record.offset for record, _ in decoder.seen] == [0, 1, 2]
    assert (script.done, script.overlaps) == (["a", "b"], [])
    await world.stop()


@pytest.mark.virtual
async def test_records_that_ask_for_nothing_do_not_hide_a_flood() -> None:
    """Dead letters stop the stage after their number, however many tombstones stand between them."""
    world = await make()
    for _ in range(3):
        world.write(b"bad", b"k", USERS)
        for _ in range(20):
            world.write(None, b"k", USERS)
    decoder = Decoder(USERS, bad=[Reject("unreadable") for _ in range(3)])
    limits = FloodLimits(run=3, window=100, ratio=0.9)
    run = await world.start(Script(), stage(flood=limits), foreign=decoder)
    assert (await run.halted()).code == "flood"
    assert len(world.dead()) == 2


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_foreign_record_comes_back_from_the_tiers_as_it_was() -> None:
    """Through two tiers to the decoder: key, value, headers, position and time are those of the original."""
    world = await make()
    script = Script(a=[Retry("once"), Retry("twice"), []])
    decoder = Decoder(USERS)
    first = world.write(b"a", b'{"id":"7"}', USERS, 2, DEBEZIUM)
    await world.start(script, stage(), foreign=decoder)
    await world.until(lambda: len(script.done) == 1)
    await world.until(lambda: world.metric("window_records") == 0)
    assert world.tiers() == {"10s": 1, "1m": 1, "10m": 0}
    assert len(decoder.seen) == 3
    assert all(topic == USERS and same(record, first) for record, topic in decoder.seen)
    assert [call.attempt for call in script.calls] == [1, 2, 3]
    assert len({call.event.id for call in script.calls}) == 1
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_decoder_that_defers_costs_no_attempt() -> None:
    """A tombstone and a row whose registry is down wait in a tier, null values and keys included, and come back."""
    world = await make()
    until = wall() + 45.0
    decoder = Decoder(USERS, a=[Defer("registry down", until=until)], **{"": [Defer("down", until=until)]})
    truncate, row = world.write(None, None, USERS, 1), world.write(b"a", b"k", USERS, 1)
    script = Script(a=[[]])
    await world.start(script, stage(), foreign=decoder)
    await world.until(lambda: len(decoder.seen) == 4 and world.metric("window_records") == 0)
    await world.settle(30.0)
    copies = world.records("t.work.retry.10s")
    assert {(copy.key, copy.value) for copy in copies} == {(None, None), (b"k", b"a")}
    assert all(header(copy, h.ATTEMPTS) == "0" for copy in copies)
    assert [call.attempt for call in script.calls] == [1]
    assert world.metric("records_ignored_total", topic=USERS) == 1
    again = [record for record, _ in decoder.seen[2:]]
    assert any(same(record, truncate) for record in again)
    assert any(same(record, row) for record in again)
    assert (world.dead(), world.failures()) == ([], [])
    await world.stop()


@pytest.mark.virtual
async def test_a_decoder_that_rejects_makes_a_dead_letter() -> None:
    """Null key and value as they were, the stage's own dead-letter topic, where it stood, and the decoder's reason."""
    world = await make()
    decoder = Decoder(USERS, bad=[Reject("unknown op 'x'", code="unknown_op")], **{"": [Reject("no key")]})
    world.write(b"bad", b"k", USERS, 2, DEBEZIUM)
    world.write(None, None, USERS, 2)
    await world.start(Script(), stage(), foreign=decoder)
    await world.until(lambda: done(world, (USERS, 2, 2)))
    letters = {letter.value: letter for letter in world.dead()}
    assert {value: letter.key for value, letter in letters.items()} == {b"bad": b"k", None: None}
    assert letters[b"bad"].headers[: len(DEBEZIUM)] == DEBEZIUM
    assert header(letters[b"bad"], f"{h.X_ORIGINAL}topic") == USERS
    assert header(letters[b"bad"], f"{h.DEAD}reason") == "unknown op 'x'"
    assert {failure.code for failure in world.failures()} == {"unknown_op", "reject"}
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_headers_of_a_foreign_topic_are_never_taken_for_ours() -> None:
    """Tries, identity, tenant, deadline, lane and conversation that stand there mean nothing, also on a copy."""
    world = await make()
    forged = {
        h.ATTEMPTS: "9",
        h.NOT_BEFORE: "9999999999999",
        h.ORIGINAL: "db.public.orders/0/0/1",
        h.HOPS: "1000000",
        h.TENANT: "acme",
        h.DEADLINE: "1",
        h.LANE: "batch",
        h.CONVERSATION: "theirs",
        h.CE_ID: "chosen",
        h.CE_SOURCE: "theirs",
        "x-original-topic": "elsewhere",
    }
    for _ in range(2):
        world.write(b"a", b"k", USERS, 0, forged)
    script = Script(a=[Retry("once"), Retry("once"), [], []])
    decoder = Decoder(USERS, ORDERS)
    await world.start(script, stage(enforce_deadline=True, concurrency=2), foreign=decoder)
    await world.until(lambda: len(script.done) == 2)
    assert sorted(call.attempt for call in script.calls) == [1, 1, 2, 2]
    jobs = [call.event.job for call in script.calls]
    assert len({job.id for job in jobs}) == 2
    assert {(job.tenant, job.deadline_ms, job.lane, job.conversation, job.hops) for job in jobs} == {
        ("default", None, None, "", 0)
    }
    assert {topic for _, topic in decoder.seen} == {USERS}
    assert world.failures() == []
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_copy_of_our_own_topic_stays_with_the_codec() -> None:
    """On the tiers they share, the original topic tells which of the two reads a copy; open topics stay open."""
    world = await make()
    script = Script(ours=[Retry("once"), []], theirs=[Retry("once"), []])
    decoder = Decoder(USERS)
    world.put("ours", topic="t.open", headers={h.TENANT: "forged", h.CE_ID: "mine", h.LANE: "batch"})
    world.write(b"theirs", b"k", USERS)
    await world.start(script, stage(), foreign=decoder)
    await world.until(lambda: len(script.done) == 2)
    assert [record.value for record, _ in decoder.seen] == [b"theirs", b"theirs"]
    ours = [call.event.job for call in script.calls if call.text == "ours"]
    assert {(job.tenant, job.lane) for job in ours} == {("default", "batch")}
    assert len({job.id for job in ours}) == 1
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_copy_whose_topic_is_read_no_more_is_judged_by_the_decoder() -> None:
    """The mapping may change while copies wait; without any, the dead letter names the topic all the same."""
    world = await make()
    world.write(b"a", b"k", ORDERS)
    world.write(b"b", b"k", ORDERS)
    run = await world.start(Script(a=[Retry("once")], b=[Retry("once")]), stage(), foreign=Decoder(ORDERS))
    await world.until(lambda: world.tiers()["10s"] == 2 and done(world, (ORDERS, 0, 2)))
    await run.stop()
    later = Decoder(USERS, a=[Nothing(why="the topic is ignored")], b=[Defer("not yet", until=wall() + 60)])
    run = await world.start(Script(), stage(), foreign=later)
    await world.until(lambda: world.metric("records_ignored_total", topic="other") == 1 and len(later.seen) == 2)
    await world.until(lambda: world.metric("window_records") == 0)
    await run.stop()
    await world.start(Script(), stage())
    await world.until(lambda: len(world.dead()) == 1)
    reason = "cannot decode the value as open; it first stood on db.public.orders, which work does not read now"
    assert header(world.dead()[0], f"{h.DEAD}reason") == reason
    assert {topic for _, topic in later.seen} == {ORDERS}
    await world.stop()


@pytest.mark.virtual
async def test_a_foreign_topic_that_does_not_exist_is_waited_for() -> None:
    """That of an empty table: the stage is ready for what is there, says what it waits for, and takes it once it comes.

    Without one of our own it is not ready.
    """
    world = await World.make()
    script = Script(ours=[[]], a=[[]])
    world.put("ours", topic="t.open")
    run = await world.start(script, stage(), foreign=Decoder(USERS))
    await world.until(lambda: script.done == ["ours"])
    assert run.runner.status() == ("work", True, f"running, but these topics of others do not exist yet: {USERS}")
    await world.create(USERS, partitions=7)
    world.write(b"a", b"k", USERS, 6)
    await world.until(lambda: done(world, (USERS, 6, 1)))
    assert run.runner.status() == ("work", True, "running")
    await world.broker.delete_topics(["t.open"])
    await world.settle()
    assert run.runner.status() == ("work", False, "waiting for topics that do not exist: t.open")
    await world.stop()


@pytest.mark.virtual
async def test_more_partitions_than_ours_are_no_hindrance() -> None:
    """Nothing of a foreign topic waits for counterparts, and what fails there goes to any partition of ours."""
    world = await make(partitions=7)

    async def counts(topics: Any) -> dict[str, int]:
        return dict.fromkeys(topics, 1)

    for number in range(7):
        world.write(f"{number}".encode(), b"k", USERS, number)
    script = Script(**{f"{number}": [Fail("no")] for number in range(7)})
    await world.start(script, stage(), foreign=Decoder(USERS), counts=counts)
    await world.until(lambda: done(world, *((USERS, number, 1) for number in range(7))))
    assert len(world.failures()) == 7
    await world.stop()


@pytest.mark.virtual
async def test_each_foreign_topic_has_its_own_window() -> None:
    """A topic whose records hang leaves the others theirs."""
    world = await make()
    stuck = asyncio.Event()

    async def hang() -> list[Any]:
        await stuck.wait()
        return []

    for number in range(300):
        world.write(b"slow", f"{number}".encode(), USERS)
    world.write(b"quick", b"k", ORDERS)
    script = Script(slow=[hang] * 300, quick=[[]])
    policy = RetryPolicy((1.0,), in_place=True)
    run = await world.start(script, stage(concurrency=301, retry=policy), foreign=Decoder(USERS, ORDERS))
    await world.until(lambda: script.done == ["quick"])
    feeds = run.runner._assignment.feeds
    assert {USERS, ORDERS, "t.open"} < set(feeds)
    stuck.set()
    await world.until(lambda: done(world, (USERS, 0, 300)))
    await world.stop()


@pytest.mark.virtual
async def test_what_the_handler_still_runs_for_goes_with_the_partition() -> None:
    """A tombstone that is decoded after its partition has left is settled by nobody here."""
    world = await make()
    decoded = asyncio.Event()

    class Slow(Decoder):
        async def decode(self, record: Record, topic: str) -> Any:
            await decoded.wait()
            return await super().decode(record, topic)

    world.write(None, b"k", USERS)
    run = await world.start(Script(), stage(), foreign=Slow(USERS))
    await world.until(lambda: world.metric("window_records") == 1)
    run.runner._assignment.lost([name for name in run.runner._assignment.parts if name.topic == USERS])
    decoded.set()
    await world.settle()
    assert world.metric("records_settled_total", end="ignored") == 0
    await world.stop()


def test_foreign_topics_need_a_decoder_that_knows_them() -> None:
    """Found when the stage is built, not at its first record."""
    bound = plan(stage(), "t", [USERS, ORDERS])
    for decoder in (None, Decoder(USERS)):
        with pytest.raises(ValueError, match=r"stage work has no decoder for db\.public\.orders"):
            Attempt(bound, Script(), JsonCodec(), wall, decoder)
    assert Attempt(bound, Script(), JsonCodec(), wall, Decoder(ORDERS, USERS, "more")).open_topic

"""Pauses and cancellations: what is held, what ends, and that nothing else is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.control import key_of
from pipeline.core.errors import Defer, Retry
from pipeline.core.event import Event
from pipeline.core.job import job_id
from pipeline.core.payloads import Control
from pipeline.core.record import Outgoing
from pipeline.core.stage import Context, Stage, Topic
from pipeline.devkit.clock import wall
from pipeline.runtime.control import ControlTopic
from tests.runtime.world import FAILURES, Note, Run, Script, World

TOPIC = "t.control"


class Asked(Note):
    """What outsiders write: its tenant is in the value."""

    tenant: str


class Told(World):
    """A world with a control topic, and one reader of it that all its runners ask."""

    control: ControlTopic
    following: asyncio.Task[None]

    @classmethod
    async def of(cls, *entries: Control, partitions: int = 1) -> Told:
        """Make one in which `entries` are in force from the beginning."""
        world = await cls.make(partitions)
        assert isinstance(world, Told)
        await world.create(TOPIC, partitions=1)
        for entry in entries:
            world.tell(entry)
        world.control = world.reading()
        await world.control.begin()
        world.following = asyncio.create_task(world.control.follow())
        return world

    def reading(self) -> ControlTopic:
        """A reader of the topic; the model of type `t` is `m-t`."""
        return ControlTopic(TOPIC, self.broker.reader(), self.codec, wall, lambda kind: f"m-{kind}")

    def tell(self, entry: Control, *, back: bool = False) -> None:
        """Say something, or take it back."""
        value = None if back else entry.model_dump_json().encode()
        self.broker.append(Outgoing(TOPIC, key_of(entry).encode(), value))

    async def begin(self, handler: Script, stage: Stage | None = None, **kit: Any) -> Run:
        """Start a runner that asks."""
        return await self.start(handler, stage, admission=self.control, **kit)

    async def end(self) -> None:
        """Stop everything."""
        await self.stop()
        self.following.cancel()
        await asyncio.wait({self.following})


def pause(**scope: Any) -> Control:
    """A pause."""
    return Control(state="paused", at_ms=0, operator="ann", reason="test", **scope)


def cancel(job: str, until: int | None = None) -> Control:
    """A cancellation."""
    return Control(state="cancelled", job=job, at_ms=0, operator="ann", expires_at_ms=until)


def of(job: str, tenant: str = "default", kind: str = "", **more: str) -> Mapping[str, str]:
    """The headers of a record of a job."""
    return {h.CE_ID: f"event-{job}", h.CE_SUBJECT: job, h.TENANT: tenant, h.TYPE: kind, **more}


def codes(world: World) -> list[str]:
    """How jobs have failed."""
    return [failure.code for failure in world.failures()]


# ------------------------------------------------------------------ pauses


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_paused_stage_takes_nothing_and_says_so_until_it_is_resumed() -> None:
    """Nothing is handled nor taken into memory, over a restart too; it is ready, and says why it does nothing."""
    world = await Told.of(pause(stage="work"))
    run = await world.begin(Script())
    world.put(*map(str, range(50)), key=None)
    await world.settle(40)
    assert (run.handler.calls, world.at(), world.metric("records_taken_total")) == ([], None, 0)
    assert run.runner.status() == ("work", True, "running, but paused by hand (stage work: paused by ann: test)")
    assert world.metric("stage_paused") == 1
    await run.stop()
    again = await world.begin(Script())
    await world.settle(20)
    assert again.handler.calls == []
    before = wall()
    world.tell(pause(stage="work"), back=True)
    await world.until(lambda: len(again.handler.calls) == 50)
    assert again.handler.calls[0].began - before < 1.5
    await world.settle()
    assert world.at() == 50
    assert world.metric("stage_paused") == 0
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_what_is_in_memory_when_its_stage_is_paused_stays_there() -> None:
    """What runs is finished; what was ready waits in place for as long as it takes, without an attempt or a copy."""
    world = await Told.of()
    run = await world.begin(Script(5.0), World.stage(concurrency=2))
    world.put(*map(str, range(10)), key=None)
    await world.until(lambda: len(run.handler.calls) == 2)
    world.tell(pause())
    await world.settle(90)
    assert run.handler.texts == ["0", "1"]
    assert world.metric("held_records") == 8
    world.tell(pause(), back=True)
    await world.until(lambda: world.at() == 10)
    assert {call.attempt for call in run.handler.calls} == {1}
    assert world.tiers() == {"10s": 0, "1m": 0, "10m": 0}
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("scope", [{"tenant": "acme"}, {"type": "slow"}, {"model": "m-slow"}])
async def test_a_narrow_pause_lets_others_through(scope: dict[str, str]) -> None:
    """Only what is concerned waits: in place, and let go at once; what has no place goes through a tier."""
    world = await Told.of(pause(**scope, stage="work"))
    run = await world.begin(Script())
    for number in range(300):
        world.put(f"held{number}", key=None, headers=of(f"h{number}", "acme", "slow"))
        world.put(f"free{number}", key=None, headers=of(f"f{number}", "other", "quick"))
    await world.until(lambda: len(run.handler.done) == 300)
    assert all(text.startswith("free") for text in run.handler.texts)
    await world.settle(2)
    assert world.metric("held_records") == 256
    assert world.tiers() == {"10s": 0, "1m": 44, "10m": 0}
    world.tell(pause(**scope, stage="work"), back=True)
    await world.settle(2)
    assert len(run.handler.done) == 556
    await world.until(lambda: len(run.handler.done) == 600)
    assert {call.attempt for call in run.handler.calls} == {1}
    assert codes(world) == []
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_held_record_leaves_its_place_after_half_a_minute() -> None:
    """It is a deferral then, not an attempt, and frees its key; it goes round until it is let go."""
    world = await Told.of(pause(tenant="acme"))
    run = await world.begin(Script())
    world.put("held", headers=of("h", "acme"))
    world.put("behind", headers=of("b", "other"))
    await world.settle(25)
    assert (world.tiers()["1m"], run.handler.texts) == (0, [])
    await world.settle(10)
    assert (world.tiers()["1m"], run.handler.texts) == (1, ["behind"])
    (copy,) = world.records("t.work.retry.1m")
    told = h.texts(copy.headers)
    assert (told[h.DEFERRALS], told[h.ATTEMPTS]) == ("1", "0")
    await world.settle(70)
    world.tell(pause(tenant="acme"), back=True)
    await world.until(lambda: run.handler.texts == ["behind", "held"])
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("scope", [{}, {"tenant": "acme"}])
async def test_a_held_job_ends_with_its_deadline(scope: dict[str, str]) -> None:
    """A pause does not stop the clock of a job that is in memory or comes out of a tier."""
    world = await Told.of()
    run = await world.begin(Script(5.0), World.stage(concurrency=1, enforce_deadline=True))
    world.put("first", key=None)
    world.put("late", key=None, headers=of("l", "acme", **{h.DEADLINE: str(int(wall() * 1000) + 45_000)}))
    await world.until(lambda: run.handler.texts)
    world.tell(pause(**scope))
    await world.until(lambda: codes(world) == ["deadline"], 200)
    assert run.handler.texts == ["first"]
    await world.end()


@pytest.mark.virtual
async def test_on_a_topic_of_outsiders_the_value_tells_who_is_concerned() -> None:
    """There the tenant stands in the value: it is asked for again when that is decoded."""
    world = await Told.of(pause(tenant="acme"))
    asked = Topic("open", Asked, open_topic=True)
    run = await world.begin(Script(), World.stage(asked))
    world.write(Asked(text="held", tenant="acme"), None, "t.open", headers={h.CE_ID: "1"})
    world.write(Asked(text="free", tenant="other"), None, "t.open", headers={h.CE_ID: "2"})
    await world.settle(5)
    assert (run.handler.texts, world.metric("held_records"), world.dead()) == (["free"], 1, [])
    world.tell(cancel(job_id("acme", "", "1")))
    await world.until(lambda: codes(world) == ["cancelled"])
    await world.until(lambda: world.metric("held_records") == 0)
    await world.end()


# ------------------------------------------------------------------ cancellations


async def _waits(world: Told) -> Run:
    """The job rests in a tier."""
    return await world.begin(Script(a=[Retry("not yet")]))


async def _defers(world: Told) -> Run:
    """The job waits in place."""
    return await world.begin(Script(a=[Defer("not now", until=wall() + 25)]))


async def _runs(world: Told) -> Run:
    """The job's handler runs."""
    return await world.begin(Script(30.0), World.stage(timeout=600))


async def _queues(world: Told) -> Run:
    """The job is ready, and all slots are taken."""
    world.put("other", key=None, headers=of("o"))
    return await world.begin(Script(30.0), World.stage(timeout=600, concurrency=1))


async def _stands_behind(world: Told) -> Run:
    """The job stands in its key's queue behind another."""
    world.put("other", headers=of("o"))
    return await world.begin(Script(30.0), World.stage(timeout=600))


async def _held(world: Told) -> Run:
    """The job is held by a pause."""
    world.tell(pause(tenant="acme"))
    return await world.begin(Script())


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("place", [_waits, _defers, _runs, _queues, _stands_behind, _held])
async def test_a_job_is_cancelled_wherever_it_is(place: Callable[[Told], Any]) -> None:
    """It ends at once by one failure event `cancelled`, is settled, and is not handled any more."""
    world = await Told.of()
    run = await place(world)
    world.put("a", headers=of("j", "acme"))
    await world.settle(3)
    tried = run.handler.texts.count("a")
    world.tell(cancel("j"))
    await world.settle(2)
    (failure,) = world.failures()
    assert (failure.code, failure.reason, failure.recoverable) == ("cancelled", "job j: cancelled by ann", False)
    assert "a" not in run.handler.running
    await world.until(lambda: world.metric("window_records") == 0)
    await world.settle(15)
    assert codes(world) == ["cancelled"]
    assert run.handler.texts.count("a") == tried
    assert world.dead() == []
    assert world.at() == len(world.records("t.in"))
    await world.end()


@pytest.mark.virtual
async def test_a_cancelled_job_that_comes_later_is_refused_as_it_comes() -> None:
    """Queued on the topic, or in a tier of a worker that has gone: it ends when it is taken, not after its delay."""
    world = await Told.of()
    run = await world.begin(Script(a=[Retry("not yet")]))
    world.put("a", headers=of("j"))
    await world.until(lambda: world.tiers()["10s"] == 1)
    await run.stop()
    world.put("b", headers=of("k"))
    world.tell(cancel("j"))
    world.tell(cancel("k"))
    await world.settle(1.5)
    again = await world.begin(Script())
    await world.settle(2)
    assert codes(world) == ["cancelled", "cancelled"]
    assert again.handler.calls == []
    await world.end()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_handler_is_told_that_it_is_cancelled_and_cannot_refuse() -> None:
    """`ctx.cancelled()` turns true; one that swallows its cancellation and answers has answered for nothing."""
    world = await Told.of()
    seen: list[bool] = []

    class Stubborn(Script):
        async def __call__(self, event: Event[Any], ctx: Context, /) -> list[Note]:
            seen.append(ctx.cancelled())
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                seen.append(ctx.cancelled())
            return [Note(text="anyway")]

    await world.begin(Stubborn(), World.stage(timeout=600))
    world.put("a", headers=of("j"))
    await world.settle()
    world.tell(cancel("j"))
    await world.settle(2)
    assert (seen, codes(world), world.texts()) == ([False, True], ["cancelled"], [])
    world.put("b", headers=of("k"))
    await world.until(lambda: world.texts() == ["anyway"])
    await world.end()


@pytest.mark.virtual
async def test_a_job_that_has_ended_is_not_cancelled() -> None:
    """A stage that tells outcomes tells them whatever was said: else a cancellation would cancel its own failure."""
    world = await Told.of(cancel("j"))
    run = await world.begin(Script(), World.stage(FAILURES, output=None, name="tell"))
    failure = b'{"stage":"s","code":"cancelled","reason":"r","failed_at_ms":0}'
    world.write(failure, topic="t.failures", headers=of("j"))
    await world.until(lambda: len(run.handler.calls) == 1)
    await world.settle()
    assert codes(world) == ["cancelled"]
    await world.end()


@pytest.mark.virtual
async def test_the_failure_event_waits_for_a_registry_that_is_down() -> None:
    """The cancellation holds meanwhile: the record is not handled, and ends by one event."""
    world = await Told.of()
    run = await world.begin(Script(30.0), World.stage(timeout=600))
    world.put("a", headers=of("j"))
    await world.settle()
    down = [True]

    def encoding(noun: str) -> None:
        if noun == "failures" and down[0]:
            raise Defer("the registry is down", until=wall() + 5)

    world.codec.encoding = encoding
    world.tell(cancel("j"))
    await world.settle(20)
    assert codes(world) == []
    down[0] = False
    await world.until(lambda: world.at() == 1)
    assert (codes(world), run.handler.texts) == (["cancelled"], ["a"])
    await world.end()


# ------------------------------------------------------------------ the topic


@pytest.mark.virtual
async def test_junk_on_the_topic_stops_nobody() -> None:
    """What cannot be read, or stands under a wrong key, is passed over; what follows it counts."""
    world = await Told.of()
    run = await world.begin(Script())
    for key, value in ((None, b"{"), (b"\xff\xfe", b"\x00"), (b"pause/all", b'{"state":"x"}'), (b"cancel/x", None)):
        world.broker.append(Outgoing(TOPIC, key, value))
    world.broker.append(Outgoing(TOPIC, b"pause/all", pause(tenant="acme").model_dump_json().encode()))
    world.tell(pause(tenant="acme"))
    await world.settle(3)
    assert list(world.control.state.pauses) == ["pause/tenant/acme"]
    world.put("a", headers=of("j"))
    await world.until(lambda: run.handler.texts == ["a"])
    await world.end()


@pytest.mark.virtual
async def test_a_worker_goes_on_without_the_topic_and_hears_of_it_once_it_is_there() -> None:
    """A pipeline made by an older version has none: that is said, and nothing is held."""
    world = await World.make()
    control = ControlTopic(TOPIC, world.broker.reader(), world.codec, wall, str)
    await control.begin()
    assert (control.missing, control.quiet) == (True, True)
    following = asyncio.create_task(control.follow())
    await world.create(TOPIC, partitions=1)
    world.broker.append(Outgoing(TOPIC, b"pause/all", pause().model_dump_json().encode()))
    await world.settle(10)
    assert control.whole("work")
    following.cancel()
    await asyncio.wait({following})


@pytest.mark.virtual
async def test_a_cancellation_that_has_expired_is_none() -> None:
    """It is forgotten, and the usual record is not asked for any more."""
    world = await Told.of(cancel("j", 1))
    run = await world.begin(Script())
    world.put("a", headers=of("j"))
    await world.until(lambda: run.handler.texts == ["a"])
    assert world.control.quiet
    await world.end()

"""Records that no handler should see as they are: undecodable, late, in a loop, or with forged bookkeeping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.event import MAX_HOPS
from pipeline.core.job import job_id
from pipeline.devkit.clock import EPOCH, wall
from tests.runtime.world import FAILURES, IN, OPEN, Script, World, header, spent


@pytest.mark.virtual
@pytest.mark.parametrize(
    "value, code", [(b"\xff\xfe no json", "undecodable"), (b"", "undecodable"), (None, "null_value")]
)
async def test_what_cannot_be_decoded_is_a_dead_letter_byte_for_byte(value: bytes | None, code: str) -> None:
    """Junk, an empty and a null value: dead at once, raw, duplicate and null headers too; and its owner is told."""
    world = await World.make(partitions=3)
    headers = ((h.CE_ID, b"e"), (h.CE_SUBJECT, b"job-1"), ("odd", b"\xff"), ("odd", None), ("odd", b""))
    run = await world.start(Script())
    world.write(value, None, partition=1, headers=headers)
    world.put("good", key=b"other", partition=1)
    await world.until(lambda: world.at("t.in", 1) == 2)
    await world.stop()
    (letter,) = world.dead()
    assert (letter.partition, letter.key, letter.value) == (1, None, value)
    assert letter.headers[:5] == headers
    assert header(letter, f"{h.DEAD}code") == code
    (failure,) = world.failures()
    assert (failure.recoverable, failure.code, failure.stage) == (True, code, "work")
    assert header(world.records("t.failures")[0], h.CE_SUBJECT) == "job-1"
    assert run.handler.texts == ["good"]


@pytest.mark.virtual
async def test_a_registry_that_is_away_defers_the_record() -> None:
    """Decoding may have to wait: the record stays where it is, counted as a deferral, and no other is held up."""
    world = await World.make()
    away = [Defer("the registry is away", until=EPOCH + 20)]

    async def decoding(value: bytes) -> None:
        if b'"a"' in value and away:
            raise away.pop()

    world.codec.decoding = decoding
    run = await world.start(Script())
    world.put("a", key=b"a")
    world.put("b", key=b"b")
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert run.handler.texts == ["b", "a"]
    assert run.handler.times("a")[0] - EPOCH >= 20
    assert run.handler.calls[1].event.tries.deferrals == 1


@pytest.mark.virtual
async def test_a_lookup_that_somebody_else_cancelled_is_a_retry() -> None:
    """A decoder that awaits something cancelled does not end the worker: it is an attempt like any error."""
    world = await World.make()
    cancelled = [asyncio.CancelledError()]

    async def decoding(_: bytes) -> None:
        if cancelled:
            raise cancelled.pop()

    world.codec.decoding = decoding
    run = await world.start(Script(), world.stage(concurrency=1))
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert [call.attempt for call in run.handler.calls] == [2]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("answer", [None, [object()], ["no payload"]])
async def test_a_handler_that_returns_nonsense_is_retried_and_dead_in_the_end(answer: Any) -> None:
    """What is no sequence of payloads is our bug: an unknown error, not a crash of the worker."""

    class Nonsense(Script):
        async def __call__(self, event: Any, ctx: Any, /) -> Any:
            await super().__call__(event, ctx)
            return answer

    world = await World.make()
    run = await world.start(Nonsense())
    world.put("a")
    await world.until(world.dead)
    await world.stop()
    assert len(run.handler.calls) == 3


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_sink_that_returns_a_payload_ends_in_a_dead_letter() -> None:
    """There is nowhere to put it, and the dead letter says so."""
    world = await spent(output=None)
    assert "no output topic" in (header(world.dead()[0], f"{h.DEAD}reason") or "")


# ---------------------------------------------------------------- deadlines and loops


@pytest.mark.virtual
@pytest.mark.parametrize("enforced", [True, False])
async def test_a_deadline_that_has_passed_fails_the_job_where_it_is_enforced(enforced: bool) -> None:
    """Before a try, and only where the stage enforces deadlines: elsewhere a result that exists is delivered."""
    world = await World.make()
    run = await world.start(Script(), world.stage(enforce_deadline=enforced))
    world.put("a", headers={h.DEADLINE: str(int(EPOCH * 1000))})
    await world.until(lambda: world.at() == 1)
    await world.stop()
    assert run.handler.texts == ([] if enforced else ["a"])
    assert [failure.code for failure in world.failures()] == (["deadline"] if enforced else [])
    assert world.texts() == ([] if enforced else ["a!"])


@pytest.mark.virtual
@pytest.mark.parametrize("answer", [Retry("later"), Defer("later", until=EPOCH + 3_600)])
async def test_no_wait_goes_past_an_enforced_deadline(answer: Exception) -> None:
    """Where the next try would be too late the job fails at once, with the reason of the last try."""
    world = await World.make()
    await world.start(Script(a=[answer]), world.stage(enforce_deadline=True))
    world.put("a", headers={h.DEADLINE: str(int((EPOCH + 5) * 1000))})
    await world.until(lambda: world.at() == 1)
    await world.stop()
    (failure,) = world.failures()
    assert (failure.code, failure.recoverable) == ("deadline", False)
    assert "later" in failure.reason
    assert wall() < EPOCH + 5


@pytest.mark.virtual
async def test_an_event_in_a_loop_is_a_dead_letter() -> None:
    """More hops than any honest chain: somebody wired topics in a circle. The handler is not called."""
    world = await World.make()
    run = await world.start(Script())
    world.put("a", headers={h.HOPS: str(MAX_HOPS)})
    world.put("b", headers={h.HOPS: str(MAX_HOPS - 1)})
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert run.handler.texts == ["b"]
    assert header(world.dead()[0], f"{h.DEAD}code") == "loop"


@pytest.mark.virtual
async def test_the_loop_guard_ends_loops_through_the_failures_too() -> None:
    """A stage that reads the failures and fails does not feed itself for ever: past the guard nothing is derived."""

    class Failing(Script):
        async def __call__(self, event: Any, ctx: Any, /) -> Any:
            await super().__call__(event, ctx)
            raise Reject("no")

    world = await World.make()
    run = await world.start(Failing(), world.stage(IN, FAILURES))
    world.put("a")
    await world.until(lambda: len(world.dead()) > MAX_HOPS)
    await asyncio.sleep(5)
    await world.stop()
    assert len(run.handler.calls) == MAX_HOPS
    assert len(world.dead()) == MAX_HOPS + 1
    assert len(world.failures()) == MAX_HOPS


# ---------------------------------------------------------------- whom to trust


@pytest.mark.virtual
async def test_forged_bookkeeping_on_an_open_topic_is_ignored() -> None:
    """Outsiders cannot claim attempts, deferrals, hops, tenants, or a place to come from."""
    world = await World.make()
    forged = {
        h.ATTEMPTS: "2",
        h.DEFERRALS: "9",
        h.TIMEOUTS: "9",
        h.NOT_BEFORE: str(int((EPOCH + 9_999) * 1000)),
        h.ORIGINAL: "t.elsewhere/7/7/7",
        h.HOPS: "1000",
        h.TENANT: "victim",
        h.RUN: "5",
        f"{h.DEAD}stage": "forged",
        h.CE_ID: "mine",
        h.CE_SOURCE: "shop",
    }
    run = await world.start(Script(a=[Retry("later"), Reject("enough")]), world.stage(OPEN))
    world.put("a", topic="t.open", headers=forged)
    await world.until(world.dead)
    await world.stop()
    first = run.handler.calls[0]
    assert first.attempt == 1
    assert (first.event.job.tenant, first.event.job.hops, first.event.job.run) == ("default", 0, 0)
    assert first.event.job.id == run.handler.calls[1].event.job.id == job_id("default", "shop", "mine")
    told = h.texts(world.dead()[0].headers)
    assert (told[h.ATTEMPTS], told[h.DEFERRALS], told[h.TIMEOUTS]) == ("1", "0", "0")
    assert told[h.ORIGINAL].startswith("t.open/0/0/")
    assert told[f"{h.X_ORIGINAL}topic"] == "t.open"
    assert told[f"{h.DEAD}stage"] == "work"


@pytest.mark.virtual
async def test_bookkeeping_on_our_own_source_topics_is_not_a_copys() -> None:
    """Attempts count on tiers only: an output that came with such a header starts afresh in the next stage."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later")]))
    world.put("a", headers={h.ATTEMPTS: "2"})
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    assert [call.attempt for call in run.handler.calls] == [1, 2]

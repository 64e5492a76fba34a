"""What each outcome of a handler leads to: the destination, its headers, the failure event, and what is settled."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Reject, Retry
from pipeline.core.job import child_id
from pipeline.core.payloads import Failure
from pipeline.core.retry import RetryPolicy
from pipeline.devkit.clock import EPOCH
from tests.runtime.world import OPEN, Note, Script, World, header, spent


@pytest.mark.virtual
async def test_fail_ends_the_job_with_a_failure_event() -> None:
    """A `Fail` is the request's own: one failure event that is not recoverable, no dead letter, no retry."""
    world = await spent(Fail("no such thing", code="unknown_thing"))
    (failure,) = world.failures()
    assert failure == Failure(
        endpoint="crm",
        metadata={"case": "7"},
        stage="work",
        code="unknown_thing",
        reason="no such thing",
        recoverable=False,
        failed_at_ms=failure.failed_at_ms,
    )
    (record,) = world.records("t.failures")
    assert (record.partition, record.key) == (2, b"key")
    assert header(record, h.CE_SUBJECT) == "job-1"
    assert header(record, h.CE_ID) == child_id("event-1", "work.failure", 0, 0)
    assert header(record, h.TENANT) == "acme"
    assert world.dead() == []
    assert sum(world.tiers().values()) == 0
    assert world.metric("records_settled_total", end="failure") == 1
    assert world.metric("tries_total", outcome="fail") == 1


@pytest.mark.virtual
async def test_reject_is_a_dead_letter_at_once() -> None:
    """A `Reject` needs a person: key, value and headers as they were, the reason beside them, and its owner told."""
    world = await spent(Reject("we cannot do this", code="bug_7"))
    (letter,) = world.dead()
    (source,) = world.records("t.in")
    assert (letter.partition, letter.key, letter.value) == (2, source.key, source.value)
    assert letter.headers[: len(source.headers)] == source.headers
    told = h.texts(letter.headers)
    assert told[f"{h.DEAD}stage"] == "work"
    assert told[f"{h.DEAD}group"] == "t.work"
    assert told[f"{h.DEAD}code"] == "bug_7"
    assert told[f"{h.DEAD}exception"] == "Reject"
    assert told[f"{h.DEAD}reason"] == "we cannot do this"
    assert told[f"{h.DEAD}version"] == "1.2.3"
    assert told[f"{h.X_ORIGINAL}topic"] == "t.in"
    assert told[f"{h.X_ORIGINAL}partition"] == "2"
    assert told[f"{h.X_ORIGINAL}offset"] == "0"
    assert told[f"{h.X_ORIGINAL}timestamp"] == str(source.timestamp_ms)
    assert told[h.ATTEMPTS] == "0"
    (failure,) = world.failures()
    assert (failure.recoverable, failure.code, failure.endpoint) == (True, "bug_7", "crm")
    assert header(world.records("t.failures")[0], h.CE_ID) == child_id("event-1", "work.dead", 0, 0)
    assert world.metric("records_settled_total", end="dead_letter") == 1


@pytest.mark.virtual
async def test_a_reject_names_its_cause() -> None:
    """Where a `Reject` was raised from another exception, the dead letter names that one's type."""
    reject = Reject("the answer is no JSON")
    reject.__cause__ = KeyError("choices")
    world = await spent(reject)
    assert header(world.dead()[0], f"{h.DEAD}exception") == "KeyError"


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    "error, code, reason, exception",
    [
        (Retry("try later", code="busy"), "busy", "try later", "Retry"),
        (ZeroDivisionError("oops"), "unexpected", "ZeroDivisionError: oops", "ZeroDivisionError"),
        (TimeoutError(), "unexpected", "TimeoutError", "TimeoutError"),
        (asyncio.CancelledError(), "unexpected", "RuntimeError: something that", "RuntimeError"),
    ],
)
async def test_three_tries_ten_seconds_and_a_minute_then_a_dead_letter(
    error: BaseException, code: str, reason: str, exception: str
) -> None:
    """`Retry` and anything unknown: 10 s after the first try, 1 min after the second, never early; then it is dead."""
    world = await spent(error, error, error)
    first, second, third = (call.began for call in world.runs[0].handler.calls)
    assert 10 <= second - first < 12.5
    assert 60 <= third - second < 67.5
    assert [call.attempt for call in world.runs[0].handler.calls] == [1, 2, 3]
    assert world.tiers() == {"10s": 1, "1m": 1, "10m": 0}
    (letter,) = world.dead()
    told = h.texts(letter.headers)
    assert (told[h.ATTEMPTS], told[h.TIMEOUTS], told[h.DEFERRALS]) == ("3", "0", "0")
    assert told[f"{h.DEAD}code"] == code
    assert told[f"{h.DEAD}reason"].startswith(reason)
    assert told[f"{h.DEAD}exception"] == exception
    assert int(told[h.FIRST_FAILURE]) == pytest.approx(first * 1000, abs=50)
    assert int(told[f"{h.DEAD}at"]) == pytest.approx(third * 1000, abs=50)
    assert told[f"{h.X_ORIGINAL}topic"] == "t.in"
    assert [failure.recoverable for failure in world.failures()] == [True]


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_copy_in_a_tier_is_the_record_with_fresh_bookkeeping() -> None:
    """Key, value, headers and partition stay; the way back, the counts and the earliest time are added, once each."""
    world = await spent(Retry("later"), Retry("later"), value=Note(text="a"))
    (source,) = world.records("t.in")
    ten, minute = world.records("t.work.retry.10s")[0], world.records("t.work.retry.1m")[0]
    for copy, attempts in ((ten, "1"), (minute, "2")):
        assert (copy.partition, copy.key, copy.value) == (2, source.key, source.value)
        assert copy.headers[: len(source.headers)] == source.headers
        assert header(copy, h.ATTEMPTS) == attempts
        assert header(copy, h.ORIGINAL) == f"t.in/2/0/{source.timestamp_ms}"
        assert len([name for name, _ in copy.headers if name == h.ATTEMPTS]) == 1
    assert int(header(ten, h.NOT_BEFORE) or 0) >= EPOCH * 1000 + 10_000
    assert header(ten, h.FIRST_FAILURE) == header(minute, h.FIRST_FAILURE)


@pytest.mark.virtual
async def test_ids_stay_the_same_over_all_copies() -> None:
    """The output of the second try has the id that the first try's would have had."""
    world = await spent(Retry("later"))
    (output,) = world.records("t.out")
    assert header(output, h.CE_ID) == child_id("event-1", "work", 0, 0)
    assert (output.partition, output.key) == (2, b"key")
    assert header(output, h.CE_SUBJECT) == "job-1"
    assert header(output, "mine") == "kept"
    assert header(output, h.ATTEMPTS) is None
    assert header(output, h.SOURCE) == "t.in/2/0"


@pytest.mark.virtual
async def test_a_job_without_an_id_keeps_the_one_of_its_first_position() -> None:
    """A request that sent no id is named by where it first stood, also after it has moved to a tier."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later")]), world.stage(OPEN))
    world.put("a", topic="t.open")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    first, second = (call.event for call in run.handler.calls)
    assert (first.id, first.job.id, first.trace) == (second.id, second.job.id, second.trace)
    assert header(world.records("t.out")[0], h.CE_SUBJECT) == first.job.id


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_wish_for_a_longer_delay_is_granted() -> None:
    """`Retry(after=...)` is the least delay: 300 s go through the minute tier, five times."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later", after=300)]))
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    first, second = run.handler.times("a")
    assert 300 <= second - first < 302
    assert header(world.records("t.work.retry.1m")[-1], h.ATTEMPTS) == "1"


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_stage_may_have_a_longer_policy_with_the_ten_minute_tier() -> None:
    """With delays of 10, 60 and 600 s there are four tries, and the 10 min tier is used."""
    retry = Retry("later")
    world = await World.make()
    run = await world.start(Script(a=[retry, retry, retry]), world.stage(retry=RetryPolicy((10, 60, 600))))
    world.put("a")
    await world.until(lambda: world.records("t.out"))
    await world.stop()
    times = run.handler.times("a")
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert all(delay <= wait < delay * 1.1 + 1.5 for wait, delay in zip(waits, (10, 60, 600), strict=True))
    assert world.tiers()["10m"] == 1


@pytest.mark.virtual
async def test_a_policy_without_delays_dead_letters_the_first_try() -> None:
    """One try in all means one try."""
    world = await spent(Retry("later"), retry=RetryPolicy(()))
    assert len(world.dead()) == 1
    assert sum(world.tiers().values()) == 0


@pytest.mark.virtual
async def test_a_short_retry_waits_in_place() -> None:
    """A delay below the smallest tier costs no copy: the record waits in the window and keeps its place."""
    world = await World.make()
    run = await world.start(Script(a=[Retry("later"), Retry("later")]), world.stage(retry=RetryPolicy((1, 2))))
    world.put("a", "b")
    await world.until(lambda: world.at() == 2)
    await world.stop()
    assert run.handler.texts == ["a", "a", "a", "b"]
    assert [call.attempt for call in run.handler.calls] == [1, 2, 3, 1]
    assert sum(world.tiers().values()) == 0


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_try_is_cut_at_the_handlers_deadline() -> None:
    """A handler that hangs is cancelled after the stage's timeout; that counts as an attempt and as a timeout."""
    world = await World.make()
    run = await world.start(Script(lambda text: 1_000.0), world.stage(timeout=5))
    world.put("a")
    await world.until(world.dead)
    await world.stop()
    times = run.handler.times("a")
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert all(least <= wait < least * 1.1 + 1.5 for wait, least in zip(waits, (15, 65), strict=True))
    (letter,) = world.dead()
    told = h.texts(letter.headers)
    assert (told[h.ATTEMPTS], told[h.TIMEOUTS], told[h.DEFERRALS]) == ("3", "3", "0")
    assert told[f"{h.DEAD}code"] == "timeout"
    assert told[f"{h.DEAD}reason"] == "work took longer than 5 s"
    assert run.handler.running == []
    assert world.metric("tries_total", outcome="trytimeout") == 3


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_attempts_deferrals_and_timeouts_are_counted_apart() -> None:
    """A deferral costs no attempt; a timeout is an attempt as well; each has its own header."""

    async def hang() -> None:
        await asyncio.sleep(1_000)

    world = await World.make()
    await world.start(Script(a=[Defer("later", until=EPOCH + 100), hang, Reject("enough")]), world.stage(timeout=5))
    world.put("a")
    await world.until(world.dead)
    await world.stop()
    told = h.texts(world.dead()[0].headers)
    assert (told[h.ATTEMPTS], told[h.DEFERRALS], told[h.TIMEOUTS]) == ("1", "1", "1")

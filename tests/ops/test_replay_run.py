"""Runs of replays: what is written, at what rate, by whom, and what is left when one is killed anywhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from pipeline.broker.memory_transactions import Fault
from pipeline.broker.topics import TopicSpec
from pipeline.core import headers as h
from pipeline.core.errors import Defer
from pipeline.core.letter_filter import LetterFilter
from pipeline.core.letter_state import OPEN
from pipeline.core.patch import Patch
from pipeline.core.payloads import Letter, Request, RetrievedContext
from pipeline.core.record import Outgoing
from pipeline.core.replay import Rules
from pipeline.ops.replay_journal import LEASE_SECONDS, Busy, Refused, TakenOver
from pipeline.ops.replay_plan import Wanted
from pipeline.ops.replay_run import Report
from pipeline.ops.replay_work import Person, Steps
from tests.ops.replay_world import ANN, CODEC, Process, Site, mortal

pytestmark = pytest.mark.virtual
RULES = Rules("r1")


async def test_a_letter_goes_back_as_it_was() -> None:
    """To its stage's first tier, on its partition, due now: key, value and the sender's headers byte for byte."""
    site = await Site.make()
    head = await site.bury(1)
    report = await site.replay(RULES)
    (copy,) = site.back()
    (dead,) = site.broker.records("p.infer.dlq")
    assert (dead.key, dead.value, dead.partition) == (copy.key, copy.value, copy.partition)
    told = h.texts(copy.headers)
    assert ("0", "0", "0") == (told[h.ATTEMPTS], told[h.DEFERRALS], told[h.TIMEOUTS])
    assert (head.original, head.traceparent) == (told[h.ORIGINAL], told[h.TRACEPARENT])
    assert 0 < int(told[h.NOT_BEFORE]) <= copy.timestamp_ms
    assert ("r1", head.id, "1") == (told[h.REPLAY_ID], told[h.REPLAY_LETTER], told[h.REPLAY_COUNT])
    assert {h.REPLAY_RUN, h.REPLAY_PATCH, h.REPLAY_DEADLINE}.isdisjoint(told)
    assert not [name for name in told if name.startswith((h.DEAD, h.X_ORIGINAL))]
    assert (1, 1, 0, False) == (report.copies, report.replayed, report.quarantined, report.stopped)
    book = await site.book()
    await book.refresh()
    entry = book.states.of_id(head.id)
    assert ("replayed", "r1", 1) == (entry.state, entry.replay, entry.replays)
    assert book.states.lease is None


async def test_all_is_audited() -> None:
    """Who, why, and how it ended."""
    site = await Site.make()
    await site.bury(1)
    await site.replay(RULES)
    begun, ended = await site.audit()
    assert ("replay.started", "r1", "ann", "the model is back") == (
        begun.action,
        begun.subject,
        begun.operator,
        begun.reason,
    )
    assert ("replay.finished", {"replayed": "1", "quarantined": "0"}) == (ended.action, ended.details)


async def test_nothing_goes_twice() -> None:
    """What was replayed stays where it is, unless it is asked for again; then its count goes on."""
    site = await Site.make()
    await site.bury(1)
    await site.replay(RULES)
    assert (await site.replay(Rules("r2"))).copies == 0
    assert (await site.replay(Rules("r3", again=True))).copies == 1
    assert [h.texts(one.headers)[h.REPLAY_COUNT] for one in site.back()] == ["1", "2"]


async def test_what_was_replayed_too_often_is_quarantined() -> None:
    """The state says so, and the letter goes nowhere from then on."""
    site = await Site.make()
    head = await site.bury(1)
    for number in range(3):
        await site.replay(Rules(f"r{number}", again=True))
    report = await site.replay(Rules("r4", again=True))
    assert (0, 1) == (report.copies, report.quarantined)
    book = await site.book()
    await book.refresh()
    assert ("quarantined", 3) == (book.states.of_id(head.id).state, book.states.of_id(head.id).replays)
    assert dict((await site.plan(Rules("r5", again=True, most=9))).tally.refused) == {"quarantined": 1}


async def test_the_rate_is_kept() -> None:
    """Two hundred letters at 40 a second take five seconds, whatever the transactions take."""
    site = await Site.make(transact=0.01)
    for number in range(200):
        await site.bury(number)
    report = await site.replay(RULES, rate=40.0)
    assert report.copies == 200
    assert report.seconds == pytest.approx(5.0, rel=0.05)


async def test_a_slow_replay_keeps_its_lease() -> None:
    """At one letter a minute a second replay is refused all the while, in a sentence that says who and since when."""
    site = await Site.make()
    await site.bury(1)
    await site.bury(2)
    first = await site.process(RULES, rate=1 / 60)
    second = await site.process(Rules("r2"), person=Person("bob", ""))
    running = asyncio.create_task(first.go())
    for _ in range(5):
        await asyncio.sleep(LEASE_SECONDS * 0.7)
        with pytest.raises(Busy, match=r"ann replays since 2027-01-15 08:00:00 UTC \(replay r1, last heard of"):
            await second.go()
    assert (await running).copies == 2


async def test_a_stop_ends_after_the_transaction_under_way() -> None:
    """What is left goes with the next run of the same id, and the audit tells of both."""
    site = await Site.make()
    for number in range(10):
        await site.bury(number)
    first = await site.process(RULES, rate=1.0)
    running = asyncio.create_task(first.go())
    await asyncio.sleep(4.5)
    first.stop.set()
    report = await running
    assert (4, True) == (report.replayed, report.stopped)
    second = await site.process(RULES)
    assert (await second.go(resumed=True)).replayed == 6
    assert sorted(f"job-{number}" for number in range(10)) == site.jobs()
    actions = [one.action for one in await site.audit()]
    assert actions == ["replay.started", "replay.stopped", "replay.resumed", "replay.finished"]


async def test_a_limit_holds_over_a_resumption() -> None:
    """What an earlier part has done counts."""
    site = await Site.make()
    for number in range(10):
        await site.bury(number)
    first = await site.process(RULES, Wanted(limit=5), rate=1.0)
    running = asyncio.create_task(first.go())
    await asyncio.sleep(2.5)
    first.stop.set()
    await running
    await site.replay(RULES, Wanted(limit=5))
    assert len(site.back()) == 5


async def test_taking_over_ends_the_other() -> None:
    """The first ends in a sentence at its next step; together they have replayed each letter once."""
    site = await Site.make(transact=0.01)
    for number in range(10):
        await site.bury(number)
    first = await site.process(RULES, rate=1.0)
    second = await site.process(Rules("r2"), person=Person("bob", ""))
    running = asyncio.create_task(first.go())
    await asyncio.sleep(4.5)
    assert (await second.go(take_over=True)).replayed == 6
    with pytest.raises(TakenOver, match="replay r1 was taken over: another replay has begun"):
        await running
    assert sorted(f"job-{number}" for number in range(10)) == site.jobs()
    assert ["taking over from ann: replay r1 ends"] == site.told


async def test_two_that_begin_at_once() -> None:
    """One of them replays; the other is told so. Nothing goes twice."""
    site = await Site.make(transact=0.01)
    for number in range(10):
        await site.bury(number)
    processes = [await site.process(Rules(f"r{number}"), rate=5.0) for number in range(3)]
    ends = await asyncio.gather(*(one.go() for one in processes), return_exceptions=True)
    assert sorted(f"job-{number}" for number in range(10)) == site.jobs()
    assert all(isinstance(end, Busy | TakenOver) for end in ends if isinstance(end, BaseException))
    assert any(not isinstance(end, BaseException) for end in ends)


@pytest.mark.parametrize("grace", [0.0, 0.015, 0.025, 0.1])
async def test_killed_at_every_await(grace: float) -> None:
    """Wherever a process dies, and however far its last transaction came: the next one loses and repeats nothing."""
    for last in range(2, 400, 2):
        site = await Site.make(transact=0.01)
        for number in range(5):
            await site.bury(number)
        first = await site.process(RULES, rate=20.0)
        done = await mortal(first.go(), last)
        await asyncio.sleep(grace)
        first.transactions.die()
        await asyncio.sleep(LEASE_SECONDS)
        report = await site.replay(RULES)
        assert ["job-0", "job-1", "job-2", "job-3", "job-4"] == site.jobs(), last
        if done:
            assert report.copies == 0
            break
    else:
        pytest.fail("it never came to its end")


async def test_another_run_of_the_job() -> None:
    """A patch travels in a header and raises the run, each time further; `extend` gives the job more time."""
    site = await Site.make()
    head = await site.bury(1, job={"run": 2, "deadline_ms": 5})
    await site.replay(Rules("r1", patch=Patch(max_output_tokens=900), extend=600))
    await site.replay(Rules("r2", patch=Patch(model="gpt-4o-mini"), extend=60, again=True))
    first, second = (h.texts(one.headers) for one in site.back())
    assert ("3", '{"max_output_tokens": 900}') == (first[h.REPLAY_RUN], first[h.REPLAY_PATCH])
    assert ("4", '{"model": "gpt-4o-mini"}') == (second[h.REPLAY_RUN], second[h.REPLAY_PATCH])
    assert 1_800_000_600_000 <= int(first[h.REPLAY_DEADLINE]) < 1_800_000_602_000
    book = await site.book()
    await book.refresh()
    assert (4, "replayed") == (book.states.runs["job-1"], book.states.of_id(head.id).state)


async def test_only_what_is_meant() -> None:
    """The filter of all verbs picks; others are not even counted."""
    site = await Site.make()
    await site.bury(1)
    head = await site.bury(2, code="context_too_long")
    plan = await site.plan(RULES, Wanted(LetterFilter(reasons=["context_*"])))
    assert (1, 1) == (plan.tally.selected, plan.tally.going)
    await site.replay(RULES, Wanted(LetterFilter(letters=[head.id])))
    assert site.jobs() == ["job-2"]


async def test_what_others_do_meanwhile_counts() -> None:
    """A letter that is resolved while a slow replay runs stays where it is, and that is told."""
    site = await Site.make()
    heads = [await site.bury(number * 2) for number in range(20)]
    process = await site.process(RULES, rate=0.5)
    running = asyncio.create_task(process.go())
    await asyncio.sleep(5.0)
    value = await CODEC.encode("letters", Letter(state="resolved", at_ms=1))
    site.broker.append(Outgoing("p.letters", heads[-1].id.encode(), value, partition=0))
    report = await running
    assert (19, {"resolved": 1}) == (report.replayed, dict(report.refused))


async def test_what_is_too_large_to_go_back() -> None:
    """The cluster refuses its copy: it stays where it is, is told of, and all others go."""
    site = await Site.make()
    await site.broker.delete_topics(["p.infer.retry.10s"])
    await site.broker.create_topics([TopicSpec("p.infer.retry.10s", 2, {"max.message.bytes": "3000"})])
    for number in range(3):
        await site.bury(number)
    head = await site.bury(3, payload=RetrievedContext(input="x" * 5_000))
    report = await site.replay(RULES)
    assert (3, {"too_large": 1}) == (report.replayed, dict(report.refused))
    assert site.jobs() == ["job-0", "job-1", "job-2"]
    book = await site.book()
    await book.refresh()
    assert book.states.of_id(head.id) == OPEN


async def test_what_no_partition_takes() -> None:
    """A topic that has lost partitions since the plan was made refuses as well."""
    site = await Site.make()
    await site.bury(1)
    await site.bury(2)
    process = await site.process(RULES)
    await site.broker.delete_topics(["p.infer.retry.10s"])
    await site.broker.create_topics([TopicSpec("p.infer.retry.10s", 1)])
    report = await process.go()
    assert (1, {"topic": 1}) == (report.replayed, dict(report.refused))


async def test_a_book_that_cannot_be_written() -> None:
    """Without it nothing is replayed: that ends it with the cluster's own words."""
    site = await Site.make()
    await site.bury(1)
    process = await site.process(RULES)
    await site.broker.delete_topics(["p.audit"])
    with pytest.raises(Refused, match=r"Kafka refuses what a replay writes: p\.audit: there is no such topic"):
        await process.go()
    assert not site.back()


async def test_a_registry_that_goes_away() -> None:
    """What is done stays done, the lease is given back, and the audit says why it stopped."""
    site = await Site.make()
    await site.bury(1, "preprocess", Request(type="quick_answer", input="?"))
    process = await site.process(Rules("r1", patch=Patch(max_output_tokens=9)))
    away = Defer("the registry is away", until=5.0)
    process.run.steps = Steps(process.plan, replace(process.known, codec=Away(away)), process.run.book, ANN)
    with pytest.raises(Defer, match="the registry is away"):
        await process.go()
    (_, stopped) = await site.audit()
    assert ("replay.stopped", "the registry is away") == (stopped.action, stopped.details["why"])
    assert (await site.replay(Rules("r1", patch=Patch(max_output_tokens=9)))).replayed == 1


class Away:
    """A codec whose registry is away."""

    def __init__(self, error: Defer) -> None:
        self._error = error

    async def decode(self, noun: str, payload: object, value: bytes) -> Any:
        """Find nobody."""
        raise self._error

    async def encode(self, noun: str, payload: object) -> bytes:
        """Find nobody."""
        raise self._error


@pytest.mark.parametrize("fault", ["abort", "unheard", "unheard abort"])
async def test_what_became_of_a_batch_is_always_known(fault: Fault) -> None:
    """Whichever commit is aborted, or answered by nobody: each letter goes once, and all is told as it was."""
    for number in range(5):
        site = await Site.make(transact=0.01)
        for letter in range(6):
            await site.bury(letter)
        process = await site.process(RULES, rate=20.0)
        process.transactions.faults.extend([*[None] * number, fault, fault])
        assert (await process.go()).replayed == 6
        assert site.jobs() == [f"job-{letter}" for letter in range(6)], number
        assert [one.action for one in await site.audit()] == ["replay.started", "replay.finished"]


@pytest.mark.parametrize("seed", range(12))
async def test_any_number_that_come_and_die(seed: int) -> None:
    """Whoever begins, takes over and is killed, and whenever: each letter goes back once, and none is left."""
    chance = Random(seed)
    site = await Site.make(transact=0.01)
    for letter in range(20):
        await site.bury(letter)
    running: list[tuple[Process, asyncio.Task[object]]] = []
    for number in range(6):
        process = await site.process(Rules(f"r{number % 3}"), rate=20.0)
        process.transactions.faults.extend(chance.choices([None, "abort", "unheard"], [8, 1, 1], k=20))
        running.append((process, asyncio.create_task(process.go(take_over=chance.random() < 0.7))))
        await asyncio.sleep(chance.random() * 0.4)
        if chance.random() < 0.4:
            dying, task = chance.choice(running)
            dying.transactions.die()
            task.cancel()
    ends = await asyncio.gather(*(task for _, task in running), return_exceptions=True)
    assert all(isinstance(end, Report | Busy | TakenOver | asyncio.CancelledError) for end in ends), ends
    await asyncio.sleep(LEASE_SECONDS)
    await site.replay(Rules("last"))
    assert sorted(f"job-{letter}" for letter in range(20)) == site.jobs()

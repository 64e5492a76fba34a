"""Tests of pipeline/ops/deliveries.py, on the broker in memory."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core.record import Outgoing
from pipeline.devkit.clock import EPOCH
from pipeline.ops.deliveries import Outcomes, Wanted, ended_as
from tests.ops.delivery_world import World


async def filled() -> World:
    """Make a log of three webhooks: one that fails twice and arrives, one undeliverable, one suppressed elsewhere."""
    world = await World().open()
    first, second = await world.result("a"), await world.result("b", 1)
    await world.delivery("a", "failed", first, attempts=1, status=500)
    await world.delivery("b", "undeliverable", second, code="endpoint_disabled")
    await asyncio.sleep(10)
    await world.delivery("a", "failed", first, attempts=2, status=500)
    await world.delivery("c", "suppressed", second, endpoint="audit")
    await asyncio.sleep(10)
    await world.delivery("a", "delivered", first, attempts=3, status=204)
    return world


@pytest.mark.virtual
async def test_an_entry_tells_all_that_its_record_does() -> None:
    """Where it stands, when, whose it is, and which record was delivered."""
    world = await filled()
    entry = (await world.entries(Wanted(outcome="delivered")))[0]
    assert (entry.job, entry.run, str(entry.source), str(entry.position)) == (
        "a",
        0,
        "p.results/0/0",
        "p.deliveries/0/2",
    )
    assert entry.at_ms == int((EPOCH + 20) * 1000)
    assert entry.plain["webhook_id"] == "a-result"
    assert entry.plain["status"] == 204


@pytest.mark.virtual
@pytest.mark.parametrize(
    "wanted,found",
    [
        (Wanted(), ["a failed", "a failed", "a delivered", "b undeliverable", "c suppressed"]),
        (Wanted(endpoint="audit"), ["c suppressed"]),
        (Wanted(outcome="failed"), ["a failed", "a failed"]),
        (Wanted(job="b"), ["b undeliverable"]),
        (Wanted(webhook_id="c-result"), ["c suppressed"]),
        (Wanted(job="a", outcome="undeliverable"), []),
        (Wanted(since_ms=int((EPOCH + 10) * 1000)), ["a failed", "a delivered", "c suppressed"]),
        (Wanted(until_ms=int((EPOCH + 10) * 1000)), ["a failed", "b undeliverable"]),
    ],
)
async def test_each_filter_narrows(wanted: Wanted, found: list[str]) -> None:
    """By endpoint, outcome, job, webhook and time; together they narrow further."""
    entries = await (await filled()).entries(wanted)
    assert sorted(f"{one.job} {one.delivery.outcome}" for one in entries) == sorted(found)


@pytest.mark.virtual
async def test_junk_on_the_topic_is_passed_over() -> None:
    """A null, bytes that are no delivery, and headers that are none."""
    world = await filled()
    for value in (None, b"", b"\xc3\x01junk"):
        world.broker.append(Outgoing("p.deliveries", None, value, (("pipeline-source", b"\xff"),), 0))
    assert len(await world.entries()) == 5


@pytest.mark.virtual
async def test_what_ended_is_told_by_its_last_word() -> None:
    """A webhook that arrived after failing, or is under way again, did not end as failed or undeliverable."""
    world = await filled()
    log = world.log()
    assert [one.job for one in await ended_as("undeliverable", log.entries(Wanted()))] == ["b"]
    assert [one.job for one in await ended_as("failed", log.entries(Wanted()))] == []
    (source,) = {one.source for one in await world.entries(Wanted(job="b"))}
    assert source is not None
    await world.delivery("b", "failed", source)
    assert [one.job for one in await ended_as("undeliverable", log.entries(Wanted()))] == []


@pytest.mark.virtual
async def test_an_endpoints_last_attempt_is_told() -> None:
    """What was suppressed was no attempt."""
    seen = Outcomes()
    for entry in await (await filled()).entries():
        seen.add(entry)
    assert seen.counts["failed"] == 2
    assert seen.last is not None
    assert (seen.last.job, seen.last.delivery.status) == ("a", 204)

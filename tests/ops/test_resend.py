"""Tests of pipeline/ops/resend.py, on the broker in memory."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.core import headers as h
from pipeline.core.errors import ConfigurationError
from pipeline.core.event import receive
from pipeline.core.job import child_id
from pipeline.core.payloads import Result
from pipeline.core.ports import Delivered
from pipeline.core.record import Outgoing, Partition, Position, Record
from pipeline.devkit.clock import wall
from pipeline.ops import log_scan, resend
from pipeline.ops.deliveries import Entry
from pipeline.ops.resend import Order, Resender
from tests.ops.delivery_world import CODEC, World

ORDER = Order("resend-1", "ann", "they are back")


async def run(world: World, entries: list[Entry]) -> list[Record]:
    """Send all again, and return the copies."""
    copied = await world.resender().run(entries, ORDER)
    copies = [*world.broker.records("p.notify.retry.5s"), *world.broker.records("p.deliver.retry.10s")]
    assert copied == len(copies)
    return copies


async def whys(world: World) -> list[str]:
    """Say why what the log has cannot be sent again."""
    _, refused = await world.resender().plan(await world.entries())
    return [one.why for one in refused]


@pytest.mark.virtual
async def test_a_copy_is_the_record_byte_for_byte_due_now_and_untried() -> None:
    """It stands in the first tier under its own partition, and tells its event and job as the original does."""
    world = await World().open()
    source = await world.result("a", 1)
    await world.delivery("a", "undeliverable", source)
    await asyncio.sleep(100)
    (copy,) = await run(world, await world.entries())
    (original,) = world.broker.records("p.results")
    assert (copy.topic, copy.partition) == ("p.notify.retry.5s", 1)
    assert (copy.key, copy.value) == (original.key, original.value)
    assert copy.headers[: len(original.headers)] == original.headers
    payload = await CODEC.decode("results", Result, copy.value or b"")
    event = receive(copy, payload, open_topic=False, copy=True, now=wall())
    assert (event.id, event.job.id, event.tries, str(event.origin.position)) == (
        "a-result",
        "a",
        h.Tries(),
        str(source),
    )
    assert 0 < h.replay_due_ms(copy.headers) <= copy.timestamp_ms
    assert h.texts(copy.headers)[h.REPLAY_ID] == "resend-1"


@pytest.mark.virtual
async def test_a_message_goes_back_to_deliver() -> None:
    """Its webhook is named in its payload."""
    world = await World().open()
    await world.delivery("a", "undeliverable", await world.message("a"))
    (copy,) = await run(world, await world.entries())
    assert copy.topic == "p.deliver.retry.10s"


@pytest.mark.virtual
async def test_each_is_audited_before_it_is_copied() -> None:
    """With who, why, and the record and topic; the audit's subject is the webhook."""
    world = await World().open()
    await world.delivery("a", "undeliverable", await world.result("a"))
    await run(world, await world.entries())
    (audit,) = world.audited
    assert (audit.action, audit.subject, audit.operator, audit.reason) == (
        "delivery.resent",
        "a-result",
        "ann",
        "they are back",
    )
    assert audit.details == {
        "resend": "resend-1",
        "job": "a",
        "endpoint": "crm",
        "source": "p.results/0/0",
        "target": "p.notify.retry.5s",
    }


@pytest.mark.virtual
async def test_a_plan_counts_and_changes_nothing() -> None:
    """Where to, how many, and what cannot be."""
    world = await World().open()
    for job in "abc":
        await world.delivery(job, "undeliverable", await world.result(job))
    await world.delivery("d", "undeliverable", Position("p.results", 0, 99))
    targets, refused = await world.resender().plan(await world.entries())
    assert targets == {"p.notify.retry.5s": 3}
    assert [(one.entry.job, one.why) for one in refused] == [("d", "p.results/0/99 is not kept any more")]
    assert (world.audited, world.broker.records("p.notify.retry.5s")) == ([], [])


@pytest.mark.virtual
async def test_a_record_that_is_not_kept_any_more_is_said() -> None:
    """Its topic keeps it for so many days only."""
    world = await World().open()
    await world.delivery("a", "undeliverable", await world.result("a"))
    await world.delivery("b", "undeliverable", await world.result("b"))
    world.broker.trim(Partition("p.results", 0), 1)
    assert await whys(world) == ["p.results/0/0 is not kept any more"]
    assert len(await run(world, await world.entries())) == 1


@pytest.mark.virtual
async def test_another_record_at_the_place_is_never_sent() -> None:
    """As where the topic was deleted and made again."""
    world = await World().open()
    await world.result("b")
    await world.delivery("a", "undeliverable", Position("p.results", 0, 0))
    assert await whys(world) == ["p.results/0/0 is another record now"]
    world.broker.append(Outgoing("p.messages", b"key", b"junk", partition=0))
    await world.delivery("c", "undeliverable", Position("p.messages", 0, 0))
    assert (await whys(world))[-1] == "p.messages/0/0 is another record now"


@pytest.mark.virtual
async def test_an_entry_without_a_source_is_refused() -> None:
    """So is one whose source no stage of webhooks reads."""
    world = await World().open()
    await world.delivery("a", "undeliverable", Position("p.elsewhere", 0, 0))
    (why,) = await whys(world)
    assert why == "it does not tell which record it came from (p.elsewhere/0/0)"


@pytest.mark.virtual
async def test_a_run_of_a_replay_keeps_the_id_that_the_replay_gave() -> None:
    """The record that is kept is of the run before: the copy raises it again, so the webhook's id is the same."""
    world = await World().open()
    source = await world.result("a")
    await world.delivery("a", "undeliverable", source, run=2, webhook_id=child_id("a-result", "run", 0, 2))
    (copy,) = await run(world, await world.entries())
    assert h.texts(copy.headers)[h.REPLAY_RUN] == "2"


@pytest.mark.virtual
async def test_many_records_far_apart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order the log has them; what lies between is skipped; batches follow each other."""
    monkeypatch.setattr(log_scan, "FAR", 5)
    monkeypatch.setattr(resend, "BATCH", 3)
    world = await World().open()
    places = [await world.result(f"j{number}", number % 2) for number in range(60)]
    chosen = [57, 0, 1, 2, 31, 30, 58, 11]
    for number in chosen:
        await world.delivery(f"j{number}", "undeliverable", places[number])
    copies = await run(world, await world.entries())
    assert sorted(h.texts(copy.headers)[h.CE_ID] for copy in copies) == sorted(f"j{number}-result" for number in chosen)
    assert len(world.audited) == len(chosen)


class _Refusing:
    """A producer whose broker refuses all."""

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        asyncio.get_running_loop().call_soon(delivered, RuntimeError(f"{record.topic} does not exist"))

    async def flush(self, timeout: float) -> int:
        return 0


@pytest.mark.virtual
async def test_a_broker_that_refuses_is_a_sentence() -> None:
    """It says how many were written before, and what to do."""
    world = await World().open()
    await world.delivery("a", "undeliverable", await world.result("a"))
    usual = world.resender()
    broken = Resender(usual.sources, _Refusing(), usual.audit, usual.progress, usual.clock)
    with pytest.raises(ConfigurationError, match=r"1 of 1 copies were refused, after 0 were written: p\.notify"):
        await broken.run(await world.entries(), ORDER)

"""Tests of pipeline/cli/deliveries.py, on the broker in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.deliveries import SHOWN, Ways, resend_from, timeline
from pipeline.core.control import ControlState
from pipeline.core.endpoints import disabling
from pipeline.core.errors import ConfigurationError
from pipeline.core.record import Position
from pipeline.delivering import DeliveryDesk
from pipeline.devkit.clock import EPOCH, wall
from pipeline.ops.deliveries import Wanted
from pipeline.ops.publish import Publisher
from pipeline.ops.resend import Order
from pipeline.wiring import ControlDesk
from tests.ops.delivery_world import CODEC, World
from tests.stages.made import catalog

ORDER = Order("resend-1", "ann", "")
CRM = (Wanted(endpoint="crm"), "undeliverable")
YES, DRY, ASK = Ways(False, True, True), Ways(True, False, True), Ways(False, False, True)


def desk(world: World, **disabled: str) -> DeliveryDesk:
    """Open a desk, with endpoints that people have disabled."""
    standing = {name: disabling(name, who, "", wall()) for name, who in disabled.items()}
    publisher = Publisher(world.broker.producer(), CODEC, "p")
    control = ControlDesk(ControlState(endpoints=standing), publisher, world.broker)
    return DeliveryDesk(catalog(), control, world.log(), world.resender())


async def lacking(*jobs: str) -> World:
    """Make a log of webhooks that are undeliverable."""
    world = await World().open()
    for job in jobs:
        await world.delivery(job, "undeliverable", await world.result(job))
    return world


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Read the one line that was printed."""
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.virtual
async def test_all_that_an_endpoint_lacks_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Once: what is under way again does not count as undeliverable any more."""
    world = await lacking("a", "b")
    assert await resend_from(desk(world), CRM, ORDER, YES) == 0
    assert printed(capsys) == {"resend": "resend-1", "sent": 2, "refused": {}}
    assert len(world.broker.records("p.notify.retry.5s")) == 2


@pytest.mark.virtual
async def test_one_webhook_is_sent_by_its_id_whatever_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A receiver that has lost what it took can have it again."""
    world = await lacking("a")
    await world.delivery("b", "delivered", await world.result("b"))
    assert await resend_from(desk(world), (Wanted(webhook_id="b-result"), "undeliverable"), ORDER, YES) == 0
    assert printed(capsys)["sent"] == 1


@pytest.mark.virtual
async def test_a_dry_run_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 1 where something could not be sent, or there is nothing."""
    world = await lacking("a")
    assert await resend_from(desk(world), CRM, ORDER, DRY) == 0
    assert printed(capsys) == {"resend": None, "sent": 0, "refused": {}}
    assert (world.audited, world.broker.records("p.notify.retry.5s")) == ([], [])
    assert await resend_from(desk(world), (Wanted(endpoint="audit"), "undeliverable"), ORDER, DRY) == 1


@pytest.mark.virtual
async def test_what_is_not_kept_is_told_and_the_rest_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says that not all is well."""
    world = await lacking("a")
    (entry,) = await world.entries()
    assert entry.source is not None
    await world.delivery("b", "undeliverable", entry.source._replace(offset=99))
    assert await resend_from(desk(world), CRM, ORDER, YES) == 1
    assert printed(capsys) == {
        "resend": "resend-1",
        "sent": 1,
        "refused": {"b-result": "p.results/0/99 is not kept any more"},
    }


@pytest.mark.virtual
async def test_of_many_that_cannot_be_sent_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is counted."""
    world = await World().open()
    for number in range(SHOWN + 3):
        await world.delivery(f"j{number}", "undeliverable", Position("p.results", 0, number))
    assert await resend_from(desk(world), CRM, ORDER, Ways(True, False, False)) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("is not kept any more") == SHOWN
    assert "and 3 more that cannot be sent again" in told


@pytest.mark.virtual
async def test_nothing_is_sent_to_a_disabled_endpoint() -> None:
    """It would be undeliverable once more; the sentence says what to do first."""
    world = await lacking("a")
    with pytest.raises(ConfigurationError, match="crm is disabled, so nothing was sent: run"):
        await resend_from(desk(world, crm="ann"), CRM, ORDER, YES)
    with pytest.raises(ConfigurationError, match="no endpoint is called 'crn'"):
        await resend_from(desk(world), (Wanted(endpoint="crn"), "undeliverable"), ORDER, YES)


@pytest.mark.virtual
async def test_nobody_to_ask_is_an_error() -> None:
    """A script has to say --yes."""
    with pytest.raises(ConfigurationError, match="1 webhooks would be sent, and there is nobody to ask"):
        await resend_from(desk(await lacking("a")), CRM, ORDER, ASK)


@pytest.mark.virtual
async def test_a_timeline_tells_each_attempt_and_the_time_between() -> None:
    """With status, duration and reason."""
    world = await World().open()
    source = await world.result("a")
    await world.delivery("a", "failed", source, attempts=1, status=500, duration_ms=12, request_bytes=9, reason="no")
    await asyncio.sleep(5)
    await world.delivery("a", "undeliverable", source, attempts=2, reason="disabled")
    assert EPOCH == 1_800_000_000
    assert timeline(await world.entries()) == [
        "job.completed of job a to crm",
        "2027-01-15 08:00:00  +0.0 s  attempt 1  failed 500 in 12 ms: no",
        "2027-01-15 08:00:05  +5.0 s  attempt 2  undeliverable: disabled",
    ]
    assert timeline([]) == []


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["resend"], "give the id of one webhook, or --endpoint"),
        (["resend", "a", "--endpoint", "crm"], "give the id of one webhook, or --endpoint"),
        (["resend", "a", "--outcome", "lost"], "--outcome 'lost': there are delivered, failed"),
        (["list", "--since", "soon"], "--since 'soon' is no time"),
    ],
)
def test_misuse_is_a_sentence_and_ends_with_2(arguments: list[str], told: str) -> None:
    """Before anything is opened."""
    done = CliRunner().invoke(app, ["deliveries", *arguments])
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())

"""The story of webhooks through the runtime: `notify` and `deliver` as declared, on the broker in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import topology
from pipeline.core import headers as h
from pipeline.core.catalog import Endpoint
from pipeline.core.endpoints import LAST_ATTEMPT, SCHEDULE
from pipeline.core.errors import Retry
from pipeline.core.payloads import Delivery, Message, Payload
from pipeline.core.ports import WebhookAnswer, WebhookMessage
from pipeline.core.retry import RetryPolicy, Tier
from pipeline.core.stage import Stage
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.stages.deliver import Deliver
from pipeline.stages.notify import Notify
from tests.runtime.world import World, header
from tests.stages.made import catalog
from tests.stages.test_notify import result

STAGES = {stage.name: stage for stage in topology.STAGES}
SENDERS = [STAGES["notify"], STAGES["deliver"]]
SOON = RetryPolicy((1.0,) * len(SCHEDULE), tiers=(Tier("1s", 1.0),))
"""The schedule's attempts, without its hours."""


class Receiver:
    """A sender whose posts fail while `broken` names their webhook, that often."""

    def __init__(self, **broken: int) -> None:
        """Fail so often."""
        self.broken = broken
        self.posted: list[str] = []

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Post; see the port."""
        self.posted.append(message.id)
        if self.broken.get(message.id, 0):
            self.broken[message.id] -= 1
            return WebhookAnswer(500, 3, Retry("it answered 500", code="webhook_500"))
        return WebhookAnswer(204)


async def made() -> World:
    """Make the topics of both stages."""
    world = await World.make()
    await world.create("t.results", "t.messages", "t.deliveries")
    return world


def log(world: World) -> list[Delivery]:
    """What the delivery log has."""
    return [Delivery.model_validate_json(record.value or b"") for record in world.records("t.deliveries")]


def put(world: World, topic: str, payload: Payload, name: str) -> None:
    """Write an event called `name`, of a job of the type `quick`."""
    told = {h.CE_ID: name, h.CE_SUBJECT: f"job-{name}", h.TYPE: "quick", h.TENANT: "acme"}
    world.write(payload, b"conversation", topic, headers=told)


async def start(world: World, stage: Stage, handler: Any) -> None:
    """Run a stage."""
    await world.start(handler, stage)


@pytest.mark.parametrize("stage", SENDERS, ids=lambda stage: stage.name)
def test_the_schedule_is_the_one_that_the_log_counts_by(stage: Stage) -> None:
    """Else an attempt would be told of as the last that is not, or none as the last that is."""
    assert stage.retry.tries == LAST_ATTEMPT


@pytest.mark.parametrize("stage", SENDERS, ids=lambda stage: stage.name)
def test_no_endpoint_takes_as_long_as_its_stage_allows(stage: Stage) -> None:
    """A try that the runtime cuts is told of nowhere, and its endpoint's book hears nothing of it."""
    with pytest.raises(ValidationError, match="timeout_seconds"):
        Endpoint(url="https://example.com", secret_env="SECRET", timeout_seconds=stage.timeout - 15)


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_the_log_tells_of_a_webhook_up_to_its_dead_letter() -> None:
    """Eight attempts, the last of which says what became of the message; its failure goes to no webhook."""
    world, sender = await made(), Receiver(a=100)
    stage = replace(STAGES["notify"], retry=SOON)
    await start(world, stage, Notify(catalog(), sender, FakeEndpointBook()))
    put(world, "t.results", result(), "a")
    await world.until(lambda: len(log(world)) == LAST_ATTEMPT + 1)
    await world.stop()
    *attempts, silent = log(world)
    assert [one.attempts for one in attempts] == list(range(1, LAST_ATTEMPT + 1))
    assert [one.outcome for one in attempts] == ["failed"] * len(SCHEDULE) + ["undeliverable"]
    assert {one.webhook_id for one in attempts} == {"a"}
    assert len({header(record, h.CE_ID) for record in world.records("t.deliveries")}) == LAST_ATTEMPT + 1
    assert (silent.outcome, silent.kind) == ("suppressed", "job.failed")
    assert (len(world.dead("notify")), len(sender.posted)) == (1, LAST_ATTEMPT)


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_key_keeps_its_order_where_the_endpoint_asks_for_it() -> None:
    """However often the first message fails, the second waits; one that is given up lets the next go."""
    endpoint = {"url": "https://example.com/default", "secret_env": "SECRET", "ordered": True}
    known = catalog({"endpoints": {"default": endpoint}})
    world, sender, book = await made(), Receiver(a=3, c=100), FakeEndpointBook()
    await start(world, STAGES["notify"], Notify(known, sender, book))
    await start(world, replace(STAGES["deliver"], retry=replace(SOON, in_place=True)), Deliver(known, sender, book))
    for name in "abcd":
        put(world, "t.results", result(), name)
    # Four attempts, one, eight, one; and that the dead letter's failure goes to no webhook.
    await world.until(lambda: len(log(world)) == 4 + 1 + LAST_ATTEMPT + 1 + 1)
    await world.stop()
    assert "".join(sender.posted) == "aaaa" + "b" + "c" * LAST_ATTEMPT + "d"
    assert [one.webhook_id for one in log(world) if one.outcome == "delivered"] == ["a", "b", "d"]
    messages = [Message.model_validate_json(record.value or b"") for record in world.records("t.messages")]
    assert [one.webhook_id for one in messages] == ["a", "b", "c", "d"]

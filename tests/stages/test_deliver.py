"""Tests of pipeline/stages/deliver.py."""

from __future__ import annotations

import pytest

from pipeline.core.errors import Retry
from pipeline.core.payloads import Delivery, Message, Payload
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.devkit.fakes import FakeWebhooks
from pipeline.stages.deliver import Deliver
from tests.stages.made import NOW, catalog, context, event

HOSTS = {"acme": {"webhook_hosts": ["hooks.acme.example"], "webhook_endpoint": "crm"}}
URL = "https://hooks.acme.example/in"


def message(endpoint: str = "crm") -> Message:
    """Make a message."""
    return Message(
        endpoint=endpoint, metadata={"ticket": "7"}, webhook_id="hook-1", kind="job.failed", body='{"a": "\u00e4"}'
    )


async def deliver(hooks: FakeWebhooks, book: FakeEndpointBook, sent: Message) -> Delivery:
    """Return the one delivery."""
    (delivery,) = await Deliver(catalog({"tenants": HOSTS}), hooks, book)(event(sent), context(attempt=2))
    return delivery


async def test_a_message_is_posted_as_it_is() -> None:
    """Its webhook's id is its own, not that of the record which carries it."""
    hooks = FakeWebhooks(["crm"])
    delivery = await deliver(hooks, FakeEndpointBook(), message())
    (posted,) = hooks.posted
    assert (posted.endpoint, posted.id, posted.body, posted.url) == ("crm", "hook-1", '{"a": "ä"}'.encode(), None)
    assert (delivery.endpoint, delivery.webhook_id, delivery.kind) == ("crm", "hook-1", "job.failed")
    assert (delivery.outcome, delivery.attempts, delivery.metadata) == ("delivered", 2, {"ticket": "7"})


async def test_a_failure_is_raised_so_that_its_key_waits() -> None:
    """And told of first."""
    hooks = FakeWebhooks(["crm"])
    told: list[Payload] = []
    hooks.troubles.append(Retry("500"))
    with pytest.raises(Retry):
        await Deliver(catalog(), hooks, FakeEndpointBook())(event(message()), context(emit=told.append))
    assert [one.outcome for one in told if isinstance(one, Delivery)] == ["failed"]


async def test_a_disabled_endpoint_lets_the_next_one_go() -> None:
    """The message is undeliverable, without a wait."""
    hooks, book = FakeWebhooks(["crm"]), FakeEndpointBook()
    book.disable("crm", "ann", "moved", NOW)
    assert (await deliver(hooks, book, message())).code == "endpoint_disabled"


async def test_a_url_is_looked_up_again() -> None:
    """One that its tenant may still bring goes out under the tenant's endpoint; any other is undeliverable."""
    hooks, book = FakeWebhooks(["crm"]), FakeEndpointBook()
    assert (await deliver(hooks, book, message(URL))).endpoint == "crm"
    assert hooks.posted.pop().url == URL
    refused = await deliver(hooks, book, message("https://other.example/in"))
    assert (refused.outcome, refused.code, hooks.posted) == ("undeliverable", "forbidden_address", [])

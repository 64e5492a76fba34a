"""Tests of pipeline/stages/notify.py and message.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.catalog import Catalog
from pipeline.core.errors import Defer, Fail, Outcome, Retry
from pipeline.core.payloads import Citation, Delivery, Failure, Message, Result
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.devkit.fakes import FakeWebhooks
from pipeline.stages.notify import Notify
from tests.stages.made import NOW, NOW_MS, catalog, context, event

CITATION = Citation(number=1, source="handbook", document="shop", chunk=0, version=3, title="Hours")


def result(**fields: Any) -> Result:
    """Make a result."""
    given: dict[str, Any] = {
        "answer": "At nine [1]. \u00e4",
        "citations": (CITATION,),
        "model": "small-2024",
        "finish_reason": "stop",
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "cost_usd": 0.00004,
        "latency_ms": 900,
        "metadata": {"ticket": "7"},
    }
    return Result(**(given | fields))


def failure(**fields: Any) -> Failure:
    """Make a failure."""
    given: dict[str, Any] = {"stage": "infer", "code": "refused", "reason": "No.", "failed_at_ms": NOW_MS - 1_500}
    return Failure(**(given | {"metadata": {"ticket": "7"}} | fields))


def senders() -> FakeWebhooks:
    """Make a sender that knows the catalog's endpoints."""
    return FakeWebhooks(("default", "crm", "audit"))


async def notify(
    payload: Result | Failure, hooks: FakeWebhooks, known: Catalog | None = None, now: float = NOW, **job: Any
) -> Delivery:
    """Return the one output, of an endpoint that asks for no order."""
    handler = Notify(known or catalog(), hooks, FakeEndpointBook())
    (delivery,) = await handler(event(payload, **job), context(now=now, attempt=2))
    assert isinstance(delivery, Delivery)
    return delivery


def asking(**fields: Any) -> Catalog:
    """Make a catalog whose endpoint `default` asks for `fields`."""
    endpoint = {"url": "https://example.com/default", "secret_env": "SECRET"}
    return catalog({"endpoints": {"default": endpoint | fields}})


async def test_a_result_is_posted_and_reported() -> None:
    """The message is `job.completed` with the answer and all that belongs to it, under the event's id."""
    hooks = senders()
    delivery = await notify(result(), hooks, conversation="c-1", run=1)
    (posted,) = hooks.posted
    assert (posted.endpoint, posted.id) == ("default", "event-1")
    assert json.loads(posted.body) == {
        "type": "job.completed",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "job_id": "job-1",
            "run": 1,
            "tenant": "acme",
            "type": "quick",
            "conversation": "c-1",
            "metadata": {"ticket": "7"},
            "answer": "At nine [1]. \u00e4",
            "data": None,
            "citations": [
                {"number": 1, "source": "handbook", "document": "shop", "chunk": 0, "version": 3, "title": "Hours"}
            ],
            "truncated": False,
            "model": "small-2024",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 30, "completion_tokens": 5},
            "cost_usd": 0.00004,
            "latency_ms": 900,
        },
    }
    assert delivery == Delivery(
        endpoint="default",
        metadata={"ticket": "7"},
        webhook_id="event-1",
        kind="job.completed",
        outcome="delivered",
        status=204,
        attempts=2,
        finished_at_ms=NOW_MS,
        request_bytes=len(posted.body),
    )


async def test_structured_data_is_json_and_not_text() -> None:
    """A receiver does not have to parse a text within JSON."""
    hooks = senders()
    await notify(result(data='{"hours": [9, 18]}'), hooks)
    assert json.loads(hooks.posted[0].body)["data"]["data"] == {"hours": [9, 18]}


async def test_a_failure_is_posted_with_its_reason() -> None:
    """The message is `job.failed`, of the time of the failure, with what was paid all the same."""
    hooks = senders()
    delivery = await notify(failure(), hooks, cost_usd=0.5)
    assert json.loads(hooks.posted[0].body) == {
        "type": "job.failed",
        "timestamp": "2027-01-15T07:59:58.500Z",
        "data": {
            "job_id": "job-1",
            "run": 0,
            "tenant": "acme",
            "type": "quick",
            "conversation": None,
            "metadata": {"ticket": "7"},
            "code": "refused",
            "reason": "No.",
            "stage": "infer",
            "recoverable": False,
            "cost_usd": 0.5,
        },
    }
    assert (delivery.kind, delivery.outcome) == ("job.failed", "delivered")


async def test_a_retry_says_the_same_bytes() -> None:
    """Body and id do not depend on when or how often they are sent."""
    hooks = senders()
    for payload in (result(), failure()):
        await notify(payload, hooks)
        await notify(payload, hooks, now=NOW + 600)
    bodies = [message.body for message in hooks.posted]
    assert bodies[0] == bodies[1]
    assert bodies[2] == bodies[3]


@pytest.mark.parametrize(
    "wanted,kind,used,noted",
    [
        (None, "quick", "crm", False),
        ("audit", "quick", "audit", False),
        ("crm", "quick", "crm", False),
        ("nowhere", "quick", "crm", True),
        ("default", "quick", "crm", True),
        (None, "gone", "default", False),
        ("audit", "gone", "default", True),
        ("default", "gone", "default", False),
    ],
)
async def test_only_what_the_type_offers_is_used(wanted: str | None, kind: str, used: str, noted: bool) -> None:
    """The request's endpoint, else the type's, else the default; a name the type does not offer is noted, not used.

    That also holds for the failure of the very request that was refused for its endpoint.
    """
    hooks, known = senders(), catalog(endpoint="crm", endpoints=["audit"])
    for payload in (result(endpoint=wanted), failure(endpoint=wanted)):
        delivery = await notify(payload, hooks, known, type=kind)
        assert (hooks.posted.pop().endpoint, delivery.endpoint, delivery.outcome) == (used, used, "delivered")
        assert bool(delivery.reason) is noted


@pytest.mark.parametrize("stage", ["notify", "deliver", "index"])
async def test_failures_that_nobody_waits_for_are_not_posted(stage: str) -> None:
    """A lost webhook is not announced by another one; a document has no job."""
    hooks = senders()
    delivery = await notify(failure(stage=stage), hooks)
    assert (delivery.outcome, delivery.status, hooks.posted) == ("suppressed", None, [])
    assert stage in delivery.reason
    assert (delivery.code, delivery.request_bytes) == ("silent", 0)


async def test_a_dead_letter_is_announced_as_its_type_says() -> None:
    """At once, or never; what is not recoverable is always announced."""
    hooks, silent = senders(), catalog(on_dead_letter="silent")
    assert (await notify(failure(recoverable=True), hooks)).outcome == "delivered"
    assert json.loads(hooks.posted[0].body)["data"]["recoverable"]
    assert (await notify(failure(recoverable=True), hooks, silent)).outcome == "suppressed"
    assert (await notify(failure(), hooks, silent)).outcome == "delivered"
    assert (await notify(failure(recoverable=True), hooks, silent, type="gone")).outcome == "delivered"


async def test_a_dead_letter_may_have_a_grace() -> None:
    """Until it is over the message is deferred, counted from the failure; only a recoverable one waits."""
    hooks, known = senders(), catalog(dead_letter_grace_seconds=60)
    with pytest.raises(Defer) as deferred:
        await notify(failure(recoverable=True), hooks, known)
    assert (deferred.value.until, hooks.posted) == (NOW - 1.5 + 60, [])
    assert (await notify(failure(recoverable=True), hooks, known, now=NOW + 58.5)).outcome == "delivered"
    assert (await notify(failure(), hooks, known)).outcome == "delivered"


@pytest.mark.parametrize("code", ["gone", "no_endpoint"])
async def test_an_endpoint_that_is_gone_ends_it(code: str) -> None:
    """Its refusal is a delivery that did not happen, with the reason; a failure event would only come back here."""
    hooks = senders()
    hooks.troubles.append(Fail("it is gone", code=code))
    delivery = await notify(result(endpoint="nowhere"), hooks)
    assert (delivery.outcome, delivery.status) == ("undeliverable", None)
    assert delivery.reason.startswith("it is gone; there is no endpoint 'nowhere'")


@pytest.mark.parametrize("trouble", [Retry("500"), Defer("busy", until=NOW + 5)])
async def test_what_may_work_later_is_left_to_the_runtime(trouble: Outcome) -> None:
    """Retries and deferrals of the sender are the stage's."""
    hooks = senders()
    hooks.troubles.append(trouble)
    with pytest.raises(type(trouble)):
        await notify(result(), hooks)


async def test_an_endpoint_hears_of_what_it_asks_for() -> None:
    """Of other kinds nothing is sent, and nothing waits for a grace; the log says why."""
    hooks, known = senders(), asking(events=["job.failed"])
    delivery = await notify(result(), hooks, known)
    assert (delivery.outcome, delivery.code) == ("suppressed", "not_wanted")
    assert delivery.reason == "the endpoint 'default' does not ask for job.completed"
    assert (await notify(failure(), hooks, known)).outcome == "delivered"


async def test_an_endpoint_chooses_the_version_of_the_body() -> None:
    """The second one is thin: it tells how the job ended, and not the answer."""
    hooks, known = senders(), asking(body_version=2)
    await notify(result(), hooks, known)
    await notify(failure(), hooks, known)
    done, not_done = (json.loads(message.body)["data"] for message in hooks.posted)
    assert (done["status"], not_done["status"], not_done["code"]) == ("completed", "failed", "refused")
    assert "answer" not in done


async def test_an_endpoint_that_asks_for_order_is_left_to_deliver() -> None:
    """The message has the id and the body that would have been posted; nothing is posted yet."""
    hooks, book = senders(), FakeEndpointBook()
    await notify(result(), hooks)
    (message,) = await Notify(asking(ordered=True), hooks, book)(event(result()), context())
    assert message == Message(
        endpoint="default",
        metadata={"ticket": "7"},
        webhook_id="event-1",
        kind="job.completed",
        body=hooks.posted.pop().body.decode(),
    )
    assert (hooks.posted, book.heard_of) == ([], [])


HOSTS = {"acme": {"webhook_hosts": ["hooks.acme.example", "*.acme.test"], "webhook_endpoint": "crm"}, "other": {}}


async def test_a_tenant_may_bring_a_url_on_its_hosts() -> None:
    """It is posted to under the endpoint that its tenant's rules name, and the log says where it went, by host."""
    hooks, known, url = senders(), catalog({"tenants": HOSTS}), "https://a.acme.test/in?key=secret"
    for payload in (result(endpoint=url), failure(endpoint=url)):
        delivery = await notify(payload, hooks, known)
        posted = hooks.posted.pop()
        assert (posted.endpoint, posted.url) == ("crm", url)
        assert (delivery.endpoint, delivery.reason) == ("crm", "to a.acme.test, which the request brought")


@pytest.mark.parametrize(
    "url,job",
    [
        ("https://hooks.acme.example.evil.test/", {}),
        ("http://hooks.acme.example/", {}),
        ("https://hooks.acme.example:8443/", {}),
        ("https://hooks.acme.example/", {"tenant": "other"}),
        ("https://hooks.acme.example/", {"tenant": "unknown"}),
        ("https://hooks.acme.example/", {"type": "gone"}),
    ],
)
async def test_no_other_url_is_posted_to(url: str, job: dict[str, Any]) -> None:
    """Another host, scheme, port or tenant, or a job without a known type: the usual endpoint hears, with a note."""
    hooks, known = senders(), catalog({"tenants": HOSTS})
    delivery = await notify(failure(endpoint=url), hooks, known, **job)
    assert (hooks.posted[0].endpoint, hooks.posted[0].url) == ("default", None)
    assert "there is no endpoint" in delivery.reason

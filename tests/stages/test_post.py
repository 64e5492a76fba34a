"""Tests of pipeline/stages/post.py: one attempt at a webhook, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.endpoints import LAST_ATTEMPT, Heard
from pipeline.core.errors import Defer, Fail, Outcome, Retry
from pipeline.core.payloads import Delivery, Payload
from pipeline.core.ports import WebhookAnswer, WebhookMessage
from pipeline.core.stage import Context
from pipeline.devkit.fake_endpoints import FakeEndpointBook
from pipeline.stages.post import Courier, Posting, Target
from tests.stages.made import NOW, NOW_MS

BODY = b'{"type": "job.completed"}'
BROKEN = WebhookAnswer(500, 12, Retry("it answered 500", code="webhook_500"))
URL = "https://hooks.acme.test/in"
CRM = Target("crm")


class Scene:
    """A sender that answers as it is told, in 0.25 s, and everything that comes of it."""

    def __init__(self, answer: WebhookAnswer | Outcome) -> None:
        """Answer by `answer`."""
        self.book = FakeEndpointBook()
        self.emitted: list[Payload] = []
        self.posted: list[WebhookMessage] = []
        self.now = NOW
        self._answer = answer

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Answer; see the port."""
        self.posted.append(message)
        self.now += 0.25
        if isinstance(self._answer, Outcome):
            raise self._answer
        return self._answer

    async def attempt(self, attempt: int = 1, target: Target = CRM) -> Delivery:
        """Make one attempt."""
        posting = Posting(target, "hook-1", "job.completed", BODY, {"ticket": "7"})
        context = Context("event-1", attempt, None, lambda: self.now, emit=self.emitted.append)
        return await Courier(self, self.book).attempt(posting, context)

    async def told(self, attempt: int = 1) -> Delivery:
        """Make an attempt that is not the end, and return what was told of it."""
        assert isinstance(self._answer, WebhookAnswer)
        with pytest.raises(Outcome) as raised:
            await self.attempt(attempt)
        assert raised.value is self._answer.refusal
        (told,) = self.emitted
        assert isinstance(told, Delivery)
        return told


def entry(**fields: Any) -> Delivery:
    """Make an entry of the log, of an attempt that took 0.25 s."""
    given: dict[str, Any] = {
        "endpoint": "crm",
        "metadata": {"ticket": "7"},
        "webhook_id": "hook-1",
        "kind": "job.completed",
        "attempts": 1,
        "finished_at_ms": NOW_MS + 250,
        "duration_ms": 250,
        "request_bytes": len(BODY),
    }
    return Delivery(**(given | fields))


async def test_a_success_is_told_with_all_figures() -> None:
    """Status, time, sizes; and the endpoint's book hears of it."""
    scene = Scene(WebhookAnswer(202, 12))
    assert await scene.attempt() == entry(outcome="delivered", status=202, response_bytes=12)
    assert scene.book.heard_of == [("crm", Heard(ok=True))]
    assert scene.emitted == []


async def test_a_failed_attempt_is_told_before_it_is_raised() -> None:
    """The log has each attempt, not the last one alone."""
    scene = Scene(BROKEN)
    assert await scene.told(attempt=3) == entry(
        outcome="failed", status=500, response_bytes=12, reason="it answered 500", code="webhook_500", attempts=3
    )
    assert scene.book.heard_of == [("crm", Heard(ok=False, reason="it answered 500"))]


async def test_the_last_attempt_says_that_it_was_the_last() -> None:
    """From there the message is a dead letter, and nobody tells the log of it but the attempt itself."""
    told = await Scene(BROKEN).told(attempt=LAST_ATTEMPT)
    assert (told.outcome, told.code, told.attempts) == ("undeliverable", "webhook_500", 8)
    assert told.reason == "it answered 500; that was the last of 8 attempts: the message is a dead letter now"


async def test_a_retry_after_is_never_the_last() -> None:
    """A deferral costs no attempt."""
    scene = Scene(WebhookAnswer(503, 0, Defer("it is busy", until=NOW + 60, code="webhook_busy")))
    assert (await scene.told(attempt=LAST_ATTEMPT)).outcome == "failed"
    assert scene.book.heard_of == [("crm", Heard(ok=False, reason="it is busy"))]


async def test_a_rate_limit_says_nothing_of_the_endpoints_health() -> None:
    """Whoever answers 429 is there."""
    scene = Scene(WebhookAnswer(429, 0, Defer("slower", until=NOW + 60)))
    assert (await scene.told()).status == 429
    assert scene.book.heard_of == []


async def test_an_endpoint_that_is_gone_is_disabled() -> None:
    """That message is undeliverable, and so is the next one, without an attempt."""
    scene = Scene(WebhookAnswer(410, 0, Fail("it is gone for good", code="gone")))
    first, second = await scene.attempt(), await scene.attempt()
    assert (first.outcome, first.code, first.status) == ("undeliverable", "gone", 410)
    assert (second.outcome, second.code, second.status) == ("undeliverable", "endpoint_disabled", None)
    assert second.reason == "the endpoint was disabled by pipeline: it is gone for good"
    assert (len(scene.posted), scene.book.audited) == (1, ["crm"])


@pytest.mark.parametrize("code", ["no_endpoint", "forbidden_address"])
async def test_an_endpoint_that_cannot_be_posted_to_is_no_attempt(code: str) -> None:
    """It is the end of the message, and says nothing of the endpoint's health."""
    scene = Scene(Fail("not there", code=code))
    delivery = await scene.attempt()
    assert (delivery.outcome, delivery.code, delivery.duration_ms, delivery.request_bytes) == (
        "undeliverable",
        code,
        0,
        0,
    )
    assert scene.book.heard_of == []


async def test_an_endpoint_that_is_busy_with_others_is_no_attempt() -> None:
    """The deferral goes through, and the log has nothing to tell."""
    scene = Scene(Defer("16 are under way", until=NOW + 1, code="endpoint_busy"))
    with pytest.raises(Defer):
        await scene.attempt()
    assert (scene.emitted, scene.book.heard_of) == ([], [])


async def test_a_url_of_a_request_does_not_speak_for_its_endpoint() -> None:
    """A 410 there disables nothing; but an endpoint that a person has disabled lends its secret to none."""
    scene, target = Scene(WebhookAnswer(410, 0, Fail("gone", code="gone"))), Target("crm", URL, "to hooks.acme.test")
    assert (await scene.attempt(target=target)).reason == "gone; to hooks.acme.test"
    assert (scene.book.heard_of, scene.posted[0].url) == ([], URL)
    scene.book.disable("crm", "ann", "moved", NOW)
    assert (await scene.attempt(target=target)).code == "endpoint_disabled"
    assert len(scene.posted) == 1

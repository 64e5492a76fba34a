"""Tests of pipeline/clients/webhook_answer.py; how a body is read is in test_webhook.py."""

from __future__ import annotations

from unittest.mock import sentinel

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients.webhook_answer import LEAST_DEFERRAL, LONGEST_WAIT, refusal_of, refusal_without_answer
from pipeline.core.errors import Defer, Fail, Outcome, Retry
from tests.examples import at_most

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "status,headers,expected,code",
    [
        (410, {}, Fail, "gone"),
        (410, {"retry-after": "5"}, Fail, "gone"),
        (429, {"retry-after": "5"}, Defer, "webhook_busy"),
        (503, {"retry-after": "Fri, 15 Jan 2027 08:00:05 GMT"}, Defer, "webhook_busy"),
        (429, {}, Retry, "webhook_429"),
        (503, {"retry-after": "junk"}, Retry, "webhook_503"),
        (500, {"retry-after": "5"}, Retry, "webhook_500"),
        (301, {}, Retry, "webhook_301"),
        (304, {}, Retry, "webhook_304"),
        (101, {}, Retry, "webhook_101"),
        (404, {}, Retry, "webhook_404"),
        (777, {}, Retry, "webhook_777"),
    ],
)
def test_refusals_are_told_apart(status: int, headers: dict[str, str], expected: type[Outcome], code: str) -> None:
    """Gone is for good, busy with a time is a deferral, everything else an attempt, not before the time it names."""
    outcome = refusal_of("crm", status, headers, NOW)
    assert outcome is not None
    assert type(outcome) is expected
    assert outcome.code == code
    if isinstance(outcome, Defer):
        assert outcome.until == NOW + 5
    if isinstance(outcome, Retry):
        assert outcome.after == (5 if headers.get("retry-after") == "5" else None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_no_refusal(status: int) -> None:
    """Whatever else it says."""
    assert refusal_of("crm", status, {"retry-after": "5"}, NOW) is None


@pytest.mark.parametrize(
    "wait,seconds",
    [
        ("99999999", LONGEST_WAIT),
        ("Fri, 15 Jan 2038 08:00:00 GMT", LONGEST_WAIT),
        ("0", LEAST_DEFERRAL),
        ("Fri, 15 Jan 2021 08:00:00 GMT", LEAST_DEFERRAL),
    ],
)
def test_no_time_is_believed_beyond_reason(wait: str, seconds: float) -> None:
    """A day at most; and an endpoint that is busy for no time at all is not asked again at once, as that is free."""
    outcome = refusal_of("crm", 503, {"retry-after": wait}, NOW)
    assert isinstance(outcome, Defer)
    assert outcome.until == NOW + seconds


@settings(max_examples=at_most(40))
@given(st.integers(100, 999), st.text(max_size=30))
def test_every_answer_has_an_outcome(status: int, wait: str) -> None:
    """No status and no Retry-After is without an outcome."""
    assert (refusal_of("crm", status, {"retry-after": wait}, NOW) is None) == (200 <= status < 300)


@pytest.mark.parametrize(
    "error,code",
    [
        (TimeoutError(), "webhook_timeout"),
        (aiohttp.ServerTimeoutError(), "webhook_timeout"),
        (aiohttp.ClientConnectorCertificateError(sentinel.key, ValueError()), "webhook_tls"),
        (aiohttp.ClientConnectorSSLError(sentinel.key, OSError()), "webhook_tls"),
        (aiohttp.ClientConnectorDNSError(sentinel.key, OSError("secret.example")), "webhook_unreachable"),
        (aiohttp.ServerDisconnectedError("secret.example"), "webhook_unreachable"),
        (ConnectionResetError("secret.example"), "webhook_unreachable"),
    ],
)
def test_no_answer_is_an_attempt(error: Exception, code: str) -> None:
    """Whatever it was may be mended; the reason tells nothing of what the error says."""
    outcome = refusal_without_answer("crm", error, 20.0)
    assert outcome.code == code
    assert "'crm'" in outcome.reason
    assert "secret" not in outcome.reason

"""Tests of pipeline/clients/llm_failures.py."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.llm_failures import (
    HOLD_SECONDS,
    PACE_SECONDS,
    Provider,
    outcome_for,
    unanswered,
    unreadable,
)
from pipeline.core.errors import Defer, Outcome, Reject, Retry

NOW = 1_800_000_000.0
KEY = "my-own-secret-key"


def error(code: str | None = None, kind: str = "invalid_request_error", message: str = "No.") -> bytes:
    """Spell an error as OpenAI does."""
    return json.dumps({"error": {"code": code, "type": kind, "message": message, "param": None}}).encode()


@pytest.mark.parametrize(
    "headers,wait",
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"retry-after": "junk"}, PACE_SECONDS),
        ({}, PACE_SECONDS),
    ],
)
def test_a_rate_limit_is_a_deferral(headers: dict[str, str], wait: float) -> None:
    """A 429 waits until the provider said, else a few seconds, and costs no attempt."""
    outcome = outcome_for(429, headers, error("rate_limit_exceeded", "requests"), NOW)
    assert isinstance(outcome, Defer)
    assert (outcome.until, outcome.code) == (NOW + wait, "rate_limited")


@pytest.mark.parametrize("body", [error("insufficient_quota"), error(None, "insufficient_quota")])
def test_a_spent_quota_holds_the_provider(body: bytes) -> None:
    """A 429 that never heals by itself is not believed when it names a time."""
    outcome = outcome_for(429, {"retry-after": "1"}, body, NOW)
    assert isinstance(outcome, Defer)
    assert (outcome.until, outcome.code) == (NOW + HOLD_SECONDS, "insufficient_quota")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_holds_the_provider(status: int) -> None:
    """401 and 403 concern every call: never a dead letter per record."""
    outcome = outcome_for(status, {}, error("invalid_api_key"), NOW)
    assert isinstance(outcome, Defer)
    assert (outcome.until, outcome.code) == (NOW + HOLD_SECONDS, "key_refused")
    assert "OPENAI_API_KEY" in outcome.reason


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
def test_server_faults_are_retried(status: int) -> None:
    """What is the server's fault may work next time, not before it said."""
    outcome = outcome_for(status, {"retry-after": "7"}, b"<html>", NOW)
    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.code, outcome.reason) == (7.0, "server_error", f"the provider answered {status}")


@pytest.mark.parametrize(
    "status,body,code",
    [
        (400, error("context_length_exceeded"), "context_length_exceeded"),
        (400, error("content_filter"), "content_filter"),
        (404, error("model_not_found"), "model_not_found"),
        (422, b"", "http_422"),
        (400, error("a code\nwith spaces"), "http_400"),
        (400, b'{"error": {"code": 400, "message": "no"}}', "http_400"),
        (400, b'{"error": "just a text"}', "http_400"),
        (413, b"[1, 2]", "http_413"),
        (302, b"", "http_302"),
    ],
)
def test_other_refusals_are_our_fault(status: int, body: bytes, code: str) -> None:
    """We sent what we should not have: a dead letter, not a repeat."""
    outcome = outcome_for(status, {}, body, NOW)
    assert isinstance(outcome, Reject)
    assert outcome.code == code


def test_the_reason_tells_what_the_provider_said() -> None:
    """The provider's code and message reach the person who has to judge."""
    outcome = outcome_for(400, {}, error("bad_thing", message="The thing is bad."), NOW)
    assert outcome.reason == "the provider answered 400 (bad_thing: The thing is bad.)"
    assert outcome_for(400, {}, b'{"error": "just a text"}', NOW).reason == "the provider answered 400 (just a text)"


@given(
    st.integers(min_value=201, max_value=599),
    st.one_of(st.binary(max_size=60), st.builds(lambda text: error(text, text, f"{text}{KEY}"), st.text(max_size=20))),
)
def test_every_refusal_has_an_outcome_without_the_key(status: int, body: bytes) -> None:
    """No status and no body is without an outcome, and none shows the key."""
    outcome = outcome_for(status, {}, body, NOW, Provider(secret=KEY))
    assert isinstance(outcome, Outcome)
    assert KEY not in outcome.reason


def test_a_deeply_nested_body_is_junk() -> None:
    """A body made to exhaust the parser is a refusal like any other."""
    assert isinstance(outcome_for(400, {}, b"[" * 100_000, NOW), Reject)


def test_calls_without_an_answer_are_retried() -> None:
    """A time-out, a broken connection and a page in place of a completion say so, each with its code."""
    broken = ConnectionError("wrapped")
    broken.__cause__ = OSError(f"no route with {KEY}")
    outcomes = (
        unanswered(TimeoutError(), 30.0),
        unanswered(broken, 30.0, Provider(secret=KEY)),
        unanswered(OSError("gone"), 30.0),
        unreadable("body: no JSON"),
    )
    assert [(outcome.code, outcome.reason) for outcome in outcomes] == [
        ("call_timeout", "the provider gave no answer within 30 s"),
        ("no_connection", "no connection to the provider: OSError no route with ***"),
        ("no_connection", "no connection to the provider: OSError gone"),
        ("unreadable_answer", "the provider's answer cannot be read: body: no JSON"),
    ]

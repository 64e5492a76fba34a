"""A provider's failures, each mapped to an outcome, in this one place. Pure: the time is passed in.

429 with a wait, 429 without              Defer until then; after a few seconds
429 insufficient_quota, 401, 403          Defer, and the provider is held for all calls (clients/circuit.py)
408, 409, 5xx, no connection, time-out    Retry, not before what Retry-After says
200 that is no completion                 Retry
400 context_length_exceeded, content_filter, and every other 4xx     Reject: we sent what we should not have
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.clients.redact import redact
from pipeline.clients.retry_after import rate_reset, retry_after
from pipeline.core.errors import Defer, Outcome, Reject, Retry

HOLD_SECONDS = 60.0
"""How long a refused key or a spent quota holds the provider, before one call finds out whether it still does."""
PACE_SECONDS = 5.0
"""How long a 429 defers that says nothing about when."""

QUOTA, KEY, RATE = "insufficient_quota", "key_refused", "rate_limited"
HOLDING = frozenset({QUOTA, KEY})
"""Codes of deferrals that concern every call of the provider, not this one alone."""

SERVER, TIMEOUT, CONNECTION, UNREADABLE = "server_error", "call_timeout", "no_connection", "unreadable_answer"
DOWN = frozenset({SERVER, TIMEOUT, CONNECTION, UNREADABLE})
"""Codes of retries that, many in a row, mean that the provider is down."""


class _Error(NamedTuple):
    """What the body of an error says: OpenAI's `{"error": {"code", "type", "message"}}`, as far as it keeps to that."""

    code: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Provider:
    """Whom a call was made of: its name in reasons, the secret that never shows there, and whether its words may."""

    name: str = "the provider"
    secret: str = field(default="", repr=False)
    quoted: bool = True


PROVIDER = Provider()


def outcome_for(
    status: int, headers: Mapping[str, str], body: bytes, now: float, provider: Provider = PROVIDER
) -> Outcome:
    """Say what a refused call comes to. `headers` is read by lower-case names."""
    error = _read(body)
    told = redact(_told(error, quoted=provider.quoted), provider.secret)
    reason = f"{provider.name} answered {status}" + (f" ({told})" if told else "")
    if status in {401, 403}:
        return Defer(f"{reason}; check OPENAI_API_KEY and what it may use", until=now + HOLD_SECONDS, code=KEY)
    if status == 429:
        return _too_many(reason, error, headers, now)
    if status in {408, 409} or status >= 500:
        return Retry(reason, after=retry_after(headers, now), code=SERVER)
    return Reject(reason, code=_label(error, status))


def unanswered(error: BaseException, seconds: float, provider: Provider = PROVIDER) -> Retry:
    """Say why a call that had `seconds` got no answer: its time was over, or there was no connection or it broke."""
    # The libraries wrap each other's errors, and call a refused connection a time-out; the innermost one knows.
    while error.__cause__ is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    if isinstance(error, TimeoutError):
        return Retry(f"{provider.name} gave no answer within {seconds:.3g} s", code=TIMEOUT)
    return Retry(
        redact(f"no connection to {provider.name}: {type(error).__name__} {error}", provider.secret), code=CONNECTION
    )


def unreadable(problem: str, provider: Provider = PROVIDER) -> Retry:
    """Say that a 200 does not hold what was asked for, as a proxy's page does not."""
    return Retry(f"{provider.name}'s answer cannot be read: {problem}", code=UNREADABLE)


def _too_many(reason: str, error: _Error, headers: Mapping[str, str], now: float) -> Defer:
    if QUOTA in {error.code, error.kind}:
        # Heals by a person only, so what a Retry-After says here means nothing.
        return Defer(f"{reason}; the account needs credit", until=now + HOLD_SECONDS, code=QUOTA)
    wait = retry_after(headers, now)
    if wait is None:
        wait = rate_reset(headers)
    return Defer(reason, until=now + (PACE_SECONDS if wait is None else wait), code=RATE)


def _told(error: _Error, *, quoted: bool) -> str:
    if quoted:
        return f"{error.code or error.kind}: {error.message}".strip(": ")
    # A code is a word. What is longer may hold what was sent.
    return next((word[:64] for word in (error.code, error.kind) if word.replace("_", "").isalnum()), "")


def _label(error: _Error, status: int) -> str:
    code = error.code if error.code.replace("_", "").isalnum() else ""
    return code[:64] or f"http_{status}"


def _read(body: bytes) -> _Error:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return _Error("", "", "")
    error = data.get("error", data) if isinstance(data, dict) else None
    if isinstance(error, str):
        return _Error("", "", error)
    return _Error(_text(error, "code"), _text(error, "type"), _text(error, "message"))


def _text(error: Any, name: str) -> str:
    value = error.get(name) if isinstance(error, dict) else None
    return value if isinstance(value, str) else ""

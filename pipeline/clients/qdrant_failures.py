"""Qdrant's failures, mapped to outcomes in this one place: a server that is away defers, one that errs is retried."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from pipeline.clients.redact import redact
from pipeline.core.errors import Defer, Outcome, Retry
from pipeline.core.ports import Clock

AWAY_SECONDS = 10.0
"""How long a call is deferred that found no server."""

AWAY = frozenset({408, 429, 502, 503, 504})


@contextmanager
def translated(clock: Clock) -> Iterator[None]:
    """Raise the outcomes of the port in place of the client's own errors."""
    try:
        yield
    except (ApiException, ResourceExhaustedResponse, ValueError, sqlite3.Error, OSError) as error:
        raise outcome_for(error, clock()) from error


def outcome_for(error: Exception, now: float) -> Outcome:
    """Say what a failed call to the index comes to."""
    match error:
        case ResourceExhaustedResponse():
            return _away("it asks for less load", now, float(error.retry_after_s))
        case ResponseHandlingException(source=ValueError()):
            return Retry("the index answered what cannot be read", code="index_error")
        case ResponseHandlingException(source=cause):
            return _away(f"{type(cause).__name__} {cause}", now)
        case UnexpectedResponse(status_code=status) if status in AWAY:
            return _away(f"it answered {status}", now)
        case UnexpectedResponse():
            told = error.content[:200].decode("utf-8", "replace")
            return Retry(redact(f"the index answered {error.status_code}: {told}"), code="index_error")
    return Retry(redact(f"the index failed: {type(error).__name__} {error}"), code="index_error")


def _away(why: str, now: float, seconds: float = AWAY_SECONDS) -> Defer:
    wait = min(max(seconds, 1.0), 600.0)
    return Defer(redact(f"the index is away: {why}"), until=now + wait, code="index_away")

"""Qdrant's failures, mapped to outcomes in this one place.

A server that is away, busy or full defers: it is no record's fault, and passes. One that errs is retried. A collection
that is gone, or takes vectors of another length than when it was opened, halts: a person has to say what is right.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from pipeline.clients.redact import redact
from pipeline.core.errors import Defer, Halt, Outcome, Retry
from pipeline.core.ports import Clock

AWAY_SECONDS = 10.0
"""How long a call is deferred that found no server."""

FULL_SECONDS = 60.0
"""How long a call is deferred that found no room: somebody has to make some."""

AWAY = frozenset({408, 429, 502, 503, 504})
_FULL = re.compile(r"no space left|out of disk|disk is full|disk space|os error 28", re.IGNORECASE)
_LENGTH = re.compile(r"vector dimension error", re.IGNORECASE)
_GONE = re.compile(r"collection .{0,300}(doesn't exist|not found)", re.IGNORECASE | re.DOTALL)


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
            return _told(f"answered {error.status_code}: {told}", now, full=error.status_code == 507)
    return _told(f"failed: {type(error).__name__} {error}", now, full=getattr(error, "errno", None) == errno.ENOSPC)


def _told(what: str, now: float, *, full: bool = False) -> Outcome:
    """Say what a failure comes to that tells itself only in words, as most of Qdrant's do."""
    reason = redact(f"the index {what}")
    if full or _FULL.search(what):
        return Defer(f"{reason}; it needs more disk", until=now + FULL_SECONDS, code="index_full")
    if _LENGTH.search(what):
        cure = "it takes vectors of another length than this process makes: check EMBEDDING_MODEL, or make it anew"
        return Halt(f"{reason}; {cure} with `pipeline index rebuild`", code="index_refused")
    if _GONE.search(what):
        cure = "start this process again to begin with an empty one, or make it anew with `pipeline index rebuild`"
        return Halt(f"{reason}; the collection was dropped while it was in use: {cure}", code="index_gone")
    return Retry(reason, code="index_error")


def _away(why: str, now: float, seconds: float = AWAY_SECONDS) -> Defer:
    wait = min(max(seconds, 1.0), 600.0)
    return Defer(redact(f"the index is away: {why}"), until=now + wait, code="index_away")

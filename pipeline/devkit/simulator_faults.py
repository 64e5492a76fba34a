"""Failures on demand: what may be asked for, when it strikes, and how it looks on the wire.

Which call is struck depends on the order of the calls and on the seed alone, so that a run can be repeated.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.devkit.simulator_config import chance
from pipeline.devkit.simulator_wire import ApiError

# Dates end with the year 9999, and so does what a date can promise: 30 years.
_FARTHEST = 30 * 365 * 86400.0


class FaultKind(StrEnum):
    """How a call can go wrong."""

    RATE_LIMIT = "rate_limit"  # 429 with Retry-After
    INSUFFICIENT_QUOTA = "insufficient_quota"  # 429 that never heals
    SERVER_ERROR = "server_error"  # 500
    UNAVAILABLE = "unavailable"  # 503
    UNAUTHORIZED = "unauthorized"  # 401
    FORBIDDEN = "forbidden"  # 403
    CONTEXT_LENGTH = "context_length_exceeded"  # 400
    SLOW = "slow"  # a right answer, `seconds` late
    REFUSAL = "refusal"  # `message.refusal` set, content null
    CONTENT_FILTER = "content_filter"  # finish_reason content_filter, content empty
    EMPTY = "empty"  # content ""
    NOT_JSON = "not_json"  # 200 with a body that says it is JSON and is not
    HTML = "html"  # 200 with the page of some proxy
    WRONG_SHAPE = "wrong_shape"  # 200 with JSON that is no completion
    NO_USAGE = "no_usage"  # a right answer without usage
    CUT = "cut"  # the connection ends in the middle of the body
    FEWER_VECTORS = "fewer_vectors"  # embeddings: the last one is missing
    MORE_VECTORS = "more_vectors"  # embeddings: one too many
    DISORDERED = "disordered"  # embeddings: the right ones, the last first, told apart by their index alone
    NOT_FINITE = "not_finite"  # embeddings: NaN in place of a number
    WRONG_LENGTH = "wrong_length"  # embeddings: vectors of half their length
    EMPTY_VECTORS = "empty_vectors"  # embeddings: vectors without numbers


Endpoint = Literal["chat", "embeddings"]
_VECTORS = frozenset(
    {
        FaultKind.FEWER_VECTORS,
        FaultKind.MORE_VECTORS,
        FaultKind.DISORDERED,
        FaultKind.NOT_FINITE,
        FaultKind.WRONG_LENGTH,
        FaultKind.EMPTY_VECTORS,
    }
)
_MESSAGES = frozenset({FaultKind.REFUSAL, FaultKind.CONTENT_FILTER, FaultKind.EMPTY})


class RetryAfterForm(StrEnum):
    """The three ways in which a provider says when to come back."""

    SECONDS = "seconds"  # Retry-After: 12
    DATE = "date"  # Retry-After: an HTTP-date (RFC 9110, 10.2.3)
    MILLISECONDS = "milliseconds"  # retry-after-ms: 12000


class Fault(BaseModel):
    """One failure, and the calls that it strikes.

    It looks at calls whose question (of embeddings: one of the texts) contains `match` (any case; all calls when empty)
    at `endpoint` (None: at any whose answers can go wrong like this). It leaves the first `after` of them alone,
    strikes each other one with `probability`, and is spent after `times` strikes (None: never). `seconds` is the time
    until it shows. `retry_after` is a time in seconds, or a text sent as it is (to send junk).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    times: int | None = Field(default=1, ge=1)
    probability: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    match: str = ""
    endpoint: Endpoint | None = None
    after: int = Field(default=0, ge=0)
    seconds: FiniteFloat = Field(default=0.0, ge=0)
    retry_after: FiniteFloat | str | None = None
    retry_after_form: RetryAfterForm = RetryAfterForm.SECONDS


@dataclass(frozen=True, slots=True)
class FaultState:
    """A fault with its history: how many calls it looked at, and how many it struck."""

    fault: Fault
    seen: int = 0
    struck: int = 0

    def look(self, question: str, endpoint: Endpoint = "chat") -> tuple[Self, bool]:
        """Meet one call: the new state, and whether the call is struck."""
        if not self.concerns(question, endpoint):
            return self, False
        met = replace(self, seen=self.seen + 1)
        if self.seen < self.fault.after or chance(self.fault.seed, self.seen) >= self.fault.probability:
            return met, False
        return replace(met, struck=self.struck + 1), True

    def concerns(self, question: str, endpoint: Endpoint = "chat") -> bool:
        """Whether this fault is not spent and matches the question at the endpoint."""
        spent = self.fault.times is not None and self.struck >= self.fault.times
        elsewhere = self.fault.kind in (_VECTORS if endpoint == "chat" else _MESSAGES)
        if spent or elsewhere or self.fault.endpoint not in {None, endpoint}:
            return False
        return self.fault.match.casefold() in question.casefold()


class FaultPlan:
    """The faults in force, in the order in which they were added; a call gets the first one that strikes."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._states = [FaultState(fault) for fault in faults]

    @property
    def states(self) -> tuple[FaultState, ...]:
        """Every fault in force with its counts."""
        return tuple(self._states)

    def add(self, *faults: Fault) -> None:
        """Put more faults behind those in force."""
        self._states += [FaultState(fault) for fault in faults]

    def clear(self) -> None:
        """Take all faults away."""
        self._states = []

    def strike(self, question: str, endpoint: Endpoint = "chat") -> Fault | None:
        """Meet one call: the fault that it gets, if any. Faults behind that one do not see the call."""
        for place, state in enumerate(self._states):
            self._states[place], struck = state.look(question, endpoint)
            if struck:
                return state.fault
        return None


_ERRORS = {
    FaultKind.RATE_LIMIT: ApiError(429, "requests", "rate_limit_exceeded", "Too many requests: slow down."),
    FaultKind.INSUFFICIENT_QUOTA: ApiError(
        429, "insufficient_quota", "insufficient_quota", "The quota of this account is spent: check its plan."
    ),
    FaultKind.SERVER_ERROR: ApiError(500, "server_error", None, "The server failed while it handled the request."),
    FaultKind.UNAVAILABLE: ApiError(503, "server_error", None, "The engine is overloaded: try again later."),
    FaultKind.UNAUTHORIZED: ApiError(401, "invalid_request_error", "invalid_api_key", "The API key is not valid."),
    FaultKind.FORBIDDEN: ApiError(403, "invalid_request_error", None, "This key may not use the model."),
    FaultKind.CONTEXT_LENGTH: ApiError(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "The messages are longer than the model's context.",
        "messages",
    ),
}


def error_of(fault: Fault, now: datetime) -> ApiError | None:
    """The error answer of a fault at the (aware, UTC) time `now`; None for a fault that answers 200."""
    error = _ERRORS.get(fault.kind)
    return replace(error, headers=retry_after_headers(fault, now)) if error else None


def retry_after_headers(fault: Fault, now: datetime) -> Mapping[str, str]:
    """Write a fault's `retry_after` in its form; a rate limit that names no time says one second."""
    after = 1.0 if fault.retry_after is None and fault.kind is FaultKind.RATE_LIMIT else fault.retry_after
    name = "retry-after-ms" if fault.retry_after_form is RetryAfterForm.MILLISECONDS else "retry-after"
    if after is None:
        return {}
    return {name: after if isinstance(after, str) else _retry_after(after, fault.retry_after_form, now)}


def _retry_after(seconds: float, form: RetryAfterForm, now: datetime) -> str:
    # All three are rounded up: a client that trusts them must never come too early.
    if form is RetryAfterForm.MILLISECONDS:
        return str(math.ceil(seconds * 1000))
    if form is RetryAfterForm.SECONDS:
        return str(math.ceil(seconds))
    due = now + timedelta(seconds=max(-_FARTHEST, min(_FARTHEST, seconds)))
    whole = due.replace(microsecond=0) + timedelta(seconds=1 if due.microsecond else 0)
    return format_datetime(whole, usegmt=True)

"""Retry policy: pure decisions on what becomes of a record whose try did not succeed.

Retry is control flow in the runtime; this file only decides. Design section 5 holds the table of the five outcomes.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.core.errors import Defer, Fail, Halt, Reject, Retry
from pipeline.core.headers import MAX_TIME, Tries
from pipeline.core.job import Job


class Tier(NamedTuple):
    """A retry topic's delay: its name in the topic, and seconds."""

    name: str
    delay: float


TIERS = (Tier("10s", 10.0), Tier("1m", 60.0), Tier("10m", 600.0))
"""The tiers of a stage that declares none of its own, shortest first."""

IN_PLACE_SECONDS = 30.0
"""The longest deferral that waits in the window instead of a tier."""

LEAST_DEFERRAL = 0.1
"""Seconds that a deferral lasts at least: "not now, but at once" would ask a busy provider without a pause."""

LATEST = MAX_TIME / 1000
"""The latest time that is waited for, in seconds since the epoch: what the headers of a copy hold."""

JITTER = 0.1
"""The share of a delay that is added to it at most, so that what failed together does not come back together."""

_ROUNDING = 0.5  # a wait of 9.9 s goes through the 10 s tier: late by a little, never early


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """After attempt n fails, wait `delays[n-1]` seconds; when the delays are used up, the record is a dead letter.

    By topic a record that waits gives up its place in its key's order, and its tries are counted in its copies; it
    waits on `tiers`, shortest first. `in_place` it keeps its place: its key waits with it, all other keys go on, and a
    crash begins its count anew.
    """

    delays: tuple[float, ...] = (10.0, 60.0)
    in_place: bool = False
    tiers: tuple[Tier, ...] = TIERS

    def __post_init__(self) -> None:
        """Fail at declaration."""
        if not all(0 <= delay < math.inf for delay in self.delays):
            raise ValueError(f"retry delays must be finite and not negative: {self.delays}")
        lengths = [tier.delay for tier in self.tiers]
        if not lengths or lengths != sorted(set(lengths)) or not lengths[0] > 0 or math.isinf(lengths[-1]):
            raise ValueError(f"retry tiers must be there, finite, and each longer than the one before: {self.tiers}")
        if len({tier.name for tier in self.tiers}) != len(self.tiers):
            raise ValueError(f"retry tiers must have names of their own: {self.tiers}")

    @property
    def tries(self) -> int:
        """How many tries there are in all."""
        return len(self.delays) + 1


@dataclass(frozen=True, slots=True)
class FailJob:
    """Emit a failure event; the job ends."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Write the raw record to the dead letters, and a recoverable failure event."""

    code: str
    reason: str
    tries: Tries


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again at `not_before` (seconds since the epoch) or later; `in_place` permits waiting in the window."""

    not_before: float
    tries: Tries
    code: str
    reason: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class StopStage:
    """Stop the stage."""

    reason: str


Decision = FailJob | DeadLetter | Wait | StopStage


class TryTimeout(Retry):
    """A try was cut at the handler's deadline: counted apart, and as an attempt."""


def spread(event_id: str, attempts: int) -> float:
    """Pick a number from 0 to 1 for an event's next wait: the same each time, and even over all events."""
    return zlib.crc32(f"{event_id}/{attempts}".encode()) / 0xFFFF_FFFF


def decide(
    error: Exception, tries: Tries, policy: RetryPolicy, now: float, job: Job | None, jitter: float = 0.0
) -> Decision:
    """Say what becomes of a record whose try ended in `error` at `now`. `job` is None where it is not known.

    `jitter`, from 0 to 1, is where in the time allowed for it the next try comes.
    """
    match error:
        case Halt():
            return StopStage(error.reason)
        case Fail():
            return FailJob(error.code, error.reason)
        case Reject():
            return DeadLetter(error.code, error.reason, tries)
        case Defer():
            counted = replace(tries, deferrals=tries.deferrals + 1)
            until = _bounded(error.until, now + LEAST_DEFERRAL)
            wait = Wait(until, counted, error.code, error.reason, in_place=until - now <= IN_PLACE_SECONDS)
            return _unless_late(wait, job)
    return _unless_late(_attempt(error, tries, policy, now, jitter), job)


def _attempt(error: Exception, tries: Tries, policy: RetryPolicy, now: float, jitter: float) -> Wait | DeadLetter:
    code = error.code if isinstance(error, Retry) else "unexpected"
    reason = error.reason if isinstance(error, Retry) else describe(error)
    timeouts = tries.timeouts + isinstance(error, TryTimeout)
    counted = replace(tries, attempts=tries.attempts + 1, timeouts=timeouts)
    if counted.attempts >= policy.tries:
        return DeadLetter(code, reason, counted)
    delay = policy.delays[counted.attempts - 1] * (1 + JITTER * jitter)
    after = error.after if isinstance(error, Retry) and error.after is not None else 0.0
    return Wait(_bounded(now + after, now + delay), counted, code, reason, in_place=False)


def _bounded(when: float, earliest: float) -> float:
    # In this order of arguments a NaN, which compares with nothing, becomes the earliest time.
    return min(LATEST, max(earliest, when))


def _unless_late(decision: Wait | DeadLetter, job: Job | None) -> Decision:
    if isinstance(decision, Wait) and job is not None and job.late(decision.not_before):
        return FailJob("deadline", f"the deadline passes before the next try is due; the last try: {decision.reason}")
    return decision


def tier_for(wait: float, tiers: tuple[Tier, ...] = TIERS) -> Tier | None:
    """Pick the largest tier not longer than `wait` seconds; None where the rest is to be waited in place."""
    return next((tier for tier in reversed(tiers) if tier.delay <= wait + _ROUNDING), None)


def describe(error: BaseException, limit: int = 500) -> str:
    """Say what an unexpected exception was, capped: its type always, its text where it has one."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""  # an exception that cannot even be printed must not stop the stage
    return f"{name}: {text}"[:limit] if text else name[:limit]

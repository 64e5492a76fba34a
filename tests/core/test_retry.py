"""Retry policy: the table of outcomes, never early, deferrals are free, deadlines end it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import Defer, Fail, Halt, Outcome, Reject, Retry
from pipeline.core.headers import Tries
from pipeline.core.job import Job
from pipeline.core.retry import (
    IN_PLACE_SECONDS,
    LATEST,
    LEAST_DEFERRAL,
    TIERS,
    DeadLetter,
    FailJob,
    RetryPolicy,
    StopStage,
    Tier,
    TryTimeout,
    Wait,
    decide,
    describe,
    spread,
    tier_for,
)
from tests.core.strategies import NOW, few

POLICY = RetryPolicy()
WAITS = st.floats(0, 1e6)
POLICIES = st.builds(RetryPolicy, st.lists(WAITS, max_size=5).map(tuple))
FAULTS = st.one_of(
    st.builds(lambda after: Retry("why", after=after), st.none() | WAITS),
    st.just(ValueError("why")),
    st.just(TryTimeout("why")),
)
DEFERRALS = st.builds(lambda wait: Defer("why", until=NOW + wait), WAITS)


# ------------------------------------------------------------------------------------------------ the table
@pytest.mark.parametrize(
    "error, decision",
    [
        (Fail("no", code="invalid"), FailJob("invalid", "no")),
        (Reject("no", code="undecodable"), DeadLetter("undecodable", "no", Tries())),
        (Halt("flood"), StopStage("flood")),
        (Retry("no"), Wait(NOW + 10, Tries(1), "retry", "no", in_place=False)),
        (TryTimeout("slow", code="timeout"), Wait(NOW + 10, Tries(1, 0, 1), "timeout", "slow", in_place=False)),
        (KeyError("x"), Wait(NOW + 10, Tries(1), "unexpected", "KeyError: 'x'", in_place=False)),
        (TimeoutError(), Wait(NOW + 10, Tries(1), "unexpected", "TimeoutError", in_place=False)),
        (Outcome("bare"), Wait(NOW + 10, Tries(1), "unexpected", "Outcome: bare", in_place=False)),
        (Defer("busy", until=NOW + 30), Wait(NOW + 30, Tries(0, 1), "defer", "busy", in_place=True)),
        (Defer("busy", until=NOW + 31), Wait(NOW + 31, Tries(0, 1), "defer", "busy", in_place=False)),
    ],
)
def test_each_outcome_leads_to_its_end(error: Exception, decision: object) -> None:
    """The table of the five outcomes, for a first try: and anything else counts as `Retry`."""
    assert decision == decide(error, Tries(), POLICY, NOW, None)


def test_three_tries_in_all() -> None:
    """10 s after the first, 1 min after the second; the third dead-letters."""
    error, tries, ends = Retry("no"), Tries(), list[float | str]()
    for _ in range(POLICY.tries):
        decision = decide(error, tries, POLICY, NOW, None)
        assert isinstance(decision, Wait | DeadLetter)
        ends.append(decision.not_before - NOW if isinstance(decision, Wait) else "dead")
        tries = decision.tries
    assert ([10.0, 60.0, "dead"], Tries(3)) == (ends, tries)


def test_a_policy_without_delays_tries_once() -> None:
    """The first fault is the last."""
    assert DeadLetter("retry", "no", Tries(1)) == decide(Retry("no"), Tries(), RetryPolicy(()), NOW, None)


def test_a_record_with_more_attempts_than_the_policy_knows_is_dead() -> None:
    """A policy that was made shorter between two tries ends what is beyond it."""
    assert DeadLetter("retry", "no", Tries(8)) == decide(Retry("no"), Tries(7), POLICY, NOW, None)


@pytest.mark.parametrize("delays", [(-1.0,), (10.0, -0.1), (math.inf,), (math.nan,)])
def test_an_impossible_policy_is_refused_where_it_is_declared(delays: tuple[float, ...]) -> None:
    """Delays are finite and not negative."""
    with pytest.raises(ValueError, match="retry delays must be finite and not negative"):
        RetryPolicy(delays)


@pytest.mark.parametrize(
    "tiers", [(), (Tier("a", 0.0),), (Tier("a", 9.0), Tier("b", 3.0)), (Tier("a", 1.0), Tier("b", math.inf))]
)
def test_tiers_are_declared_shortest_first(tiers: tuple[Tier, ...]) -> None:
    """There is at least one, and each is longer than the one before, and finite."""
    with pytest.raises(ValueError, match="retry tiers must be there, finite, and each longer"):
        RetryPolicy(tiers=tiers)


def test_tiers_have_names_of_their_own() -> None:
    """Two of one name would be one topic with two delays."""
    with pytest.raises(ValueError, match="retry tiers must have names of their own"):
        RetryPolicy(tiers=(Tier("a", 1.0), Tier("a", 2.0)))


@given(POLICIES, st.lists(FAULTS | DEFERRALS, max_size=30))
def test_only_attempts_lead_to_the_dead_letters(policy: RetryPolicy, errors: list[Retry | Defer | ValueError]) -> None:
    """In any mixture of faults and deferrals the policy's number of faults is the end; deferrals cost none of them."""
    tries, faults, cut = Tries(), 0, 0
    for error in errors:
        decision = decide(error, tries, policy, NOW, None)
        assert isinstance(decision, Wait | DeadLetter)
        faults += not isinstance(error, Defer)
        cut += isinstance(error, TryTimeout)
        tries = decision.tries
        assert (faults, cut) == (tries.attempts, tries.timeouts)
        assert (faults == policy.tries) == isinstance(decision, DeadLetter)
        if isinstance(decision, DeadLetter):
            break
    else:
        assert len(errors) - faults == tries.deferrals


# ------------------------------------------------------------------------------------------------ time
@given(FAULTS, POLICIES, st.integers(0, 5))
def test_a_retry_is_never_early(error: Exception, policy: RetryPolicy, attempts: int) -> None:
    """The wait is at least the policy's and at least the wished one, and no longer than the longer of both."""
    decision = decide(error, Tries(attempts), policy, NOW, None)
    if isinstance(decision, Wait):
        wished = NOW + ((error.after if isinstance(error, Retry) else None) or 0.0)
        assert max(NOW + policy.delays[attempts], wished) == decision.not_before
        assert not decision.in_place


@given(DEFERRALS)
def test_a_deferral_is_never_early(error: Defer) -> None:
    """It lasts until it was asked to, and at least a moment; up to 30 s it may wait in place."""
    decision = decide(error, Tries(2, 7), POLICY, NOW, None)
    assert isinstance(decision, Wait)
    assert max(error.until, NOW + LEAST_DEFERRAL) == decision.not_before
    assert Tries(2, 8) == decision.tries
    assert (error.until - NOW <= IN_PLACE_SECONDS) == decision.in_place


@pytest.mark.parametrize("until", [NOW, NOW - 1, 0.0, -math.inf, math.nan])
def test_a_deferral_into_the_past_does_not_spin(until: float) -> None:
    """A provider that says "again in 0 seconds" is asked again after a pause, not without one."""
    decision = decide(Defer("busy", until=until), Tries(), POLICY, NOW, None)
    assert Wait(NOW + LEAST_DEFERRAL, Tries(0, 1), "defer", "busy", in_place=True) == decision


@pytest.mark.parametrize("error", [Defer("no", until=math.inf), Defer("no", until=1e300), Retry("no", after=math.inf)])
def test_a_time_that_no_header_holds_is_the_latest_one(error: Exception) -> None:
    """For ever is as long as a copy's headers can say, or until the job's deadline."""
    decision = decide(error, Tries(), POLICY, NOW, None)
    assert isinstance(decision, Wait)
    assert LATEST == decision.not_before
    assert isinstance(decide(error, Tries(), POLICY, NOW, Job("id", deadline_ms=2**53)), FailJob)


@pytest.mark.parametrize("after", [None, 0.0, -5.0, 9.0, math.nan, -math.inf])
def test_a_shorter_wish_does_not_shorten_the_policys_delay(after: float | None) -> None:
    """`after` is the least wait, never the most."""
    decision = decide(Retry("no", after=after), Tries(), POLICY, NOW, None)
    assert Wait(NOW + 10, Tries(1), "retry", "no", in_place=False) == decision


@given(FAULTS | DEFERRALS, st.integers(0, 5), st.integers(-100_000, 2_000_000))
def test_a_deadline_ends_what_would_come_too_late(error: Exception, attempts: int, left_ms: int) -> None:
    """A next try that is due at the deadline or after it is a failure of the job at once; no other decision changes."""
    job = Job("id", deadline_ms=int(NOW * 1000) + left_ms)
    free, bound = (decide(error, Tries(attempts), POLICY, NOW, other) for other in (None, job))
    if isinstance(free, Wait) and job.late(free.not_before):
        assert (
            FailJob("deadline", f"the deadline passes before the next try is due; the last try: {free.reason}") == bound
        )
    else:
        assert free == bound


@pytest.mark.parametrize("error", [Fail("no"), Reject("no"), Halt("no")])
def test_what_ends_at_once_ends_the_same_after_the_deadline(error: Exception) -> None:
    """A deadline is no excuse for hiding our own faults."""
    late = Job("id", deadline_ms=0)
    assert decide(error, Tries(1), POLICY, NOW, None) == decide(error, Tries(1), POLICY, NOW, late)


# ------------------------------------------------------------------------------------------------ tiers
@pytest.mark.parametrize(
    "wait, tier",
    [
        *((-1, None), (0, None), (9.49, None), (math.nan, None)),
        *((9.5, "10s"), (10, "10s"), (59.4, "10s"), (59.5, "1m"), (599, "1m")),
        *((600, "10m"), (1e9, "10m"), (math.inf, "10m")),
    ],
)
def test_the_largest_tier_that_fits_is_taken(wait: float, tier: str | None) -> None:
    """Half a second is rounded up into a tier; a rest below the smallest is waited in place."""
    found = tier_for(wait)
    assert tier == (found.name if found else None)


@few
@given(st.floats(-1e6, 1e6), st.lists(st.integers(1, 10_000), unique=True).map(sorted))
def test_no_larger_tier_would_have_fitted(wait: float, delays: list[int]) -> None:
    """For any tiers, shortest first: what is picked fits, and what is longer does not."""
    tiers = tuple(Tier(f"{delay}s", float(delay)) for delay in delays)
    fitting = [tier for tier in tiers if tier.delay <= wait + 0.5]
    assert (fitting[-1] if fitting else None) == tier_for(wait, tiers)


@given(st.floats(0, 1e5))
def test_a_walk_through_the_tiers_is_never_early(wait: float) -> None:
    """Moved from tier to tier, each held for its delay, a record comes out when it is due or half a second late."""
    now, moves = 0.0, 0
    while (tier := tier_for(wait - now)) is not None:
        now, moves = now + tier.delay, moves + 1
    assert max(wait, now) - wait <= 0.5
    assert moves <= wait // TIERS[-1].delay + 9 + 6


# ------------------------------------------------------------------------------------------------ descriptions
class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("a\n  b\tc"), "ValueError: a b c"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (_Mute(), "_Mute"),
    ],
)
def test_an_exception_is_described_in_one_line(error: Exception, text: str) -> None:
    """Its type always, its text where it has one; one that cannot be printed is still named and counts as a try."""
    assert text == describe(error)
    assert Wait(NOW + 10, Tries(1), "unexpected", text, in_place=False) == decide(error, Tries(), POLICY, NOW, None)


@given(st.text(), st.integers(1, 40))
def test_a_description_is_capped(text: str, limit: int) -> None:
    """No longer than the limit, and the type comes first."""
    told = describe(ValueError(text), limit)
    assert len(told) <= limit
    assert told.startswith("ValueError"[:limit])


@given(attempts=st.integers(0, 1), jitter=st.floats(0, 1), event=st.text(max_size=40))
def test_jitter_only_ever_adds(attempts: int, jitter: float, event: str) -> None:
    """A wait is its delay and up to a tenth more; where in it is the same for an event each time it is asked."""
    decision = decide(Retry("no"), Tries(attempts), POLICY, NOW, None, jitter)
    assert isinstance(decision, Wait)
    delay = POLICY.delays[attempts]
    assert NOW + delay <= decision.not_before <= NOW + delay * 1.1 + 1e-6
    assert 0 <= spread(event, attempts) == spread(event, attempts) <= 1

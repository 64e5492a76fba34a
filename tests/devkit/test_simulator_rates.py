"""The provider's buckets and their headers."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_rates import Rates, duration
from tests.examples import at_most

_STEPS = st.lists(st.tuples(st.integers(0, 500), st.floats(-5, 90)), max_size=20)


@settings(max_examples=at_most(40))
@given(requests=st.integers(1, 100), limit=st.integers(1, 1000), steps=_STEPS)
def test_a_bucket_never_gives_more_than_it_has(requests: int, limit: int, steps: list[tuple[int, float]]) -> None:
    """Over any time, what is granted is at most one full allowance plus what flowed in; levels stay in their bounds."""
    now = latest = 0.0
    rates, granted = Rates.full(requests, limit, now), 0
    for wanted, later in steps:
        now += later
        latest = max(latest, now)
        rates, wait = rates.take(wanted, now)
        granted += wait == 0
        assert wait >= 0
        assert 0 <= rates.requests.level <= requests
        assert 0 <= rates.tokens.level <= limit
    assert granted <= requests * (1 + latest / 60) + 1e-6


@settings(max_examples=at_most(40))
@given(limit=st.integers(1, 1000), first=st.integers(0, 1000), then=st.integers(0, 1000))
def test_after_the_wait_that_was_named_there_is_room(limit: int, first: int, then: int) -> None:
    """Who waits as long as told is served."""
    rates, _ = Rates.full(10**6, limit, 0.0).take(min(first, limit), 0.0)
    _, wait = rates.take(then, 0.0)
    _, again = rates.take(then, wait)
    assert again == pytest.approx(0, abs=1e-6)


def test_a_call_that_has_to_wait_takes_nothing() -> None:
    """A refused call does not use up what a smaller one could have."""
    rates, _ = Rates.full(10, 100, 0.0).take(60, 0.0)
    rates, wait = rates.take(50, 0.0)
    assert wait == pytest.approx(6.0)
    assert rates.take(40, 0.0)[1] == 0


def test_the_headers_tell_limit_rest_and_time() -> None:
    """After one call of 30 tokens, both buckets show what is left and when they are full again."""
    rates, _ = Rates.full(60, 600, 0.0).take(30, 0.0)
    assert rates.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "570",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "3s",
    }


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0ms"), (0.0195, "20ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360, "6m0s"), (3661.5, "1h1m1.5s")],
)
def test_durations_look_like_the_providers(seconds: float, text: str) -> None:
    """Durations are written with their units, and round up."""
    assert duration(seconds) == text


@settings(max_examples=at_most(40))
@given(st.floats(0, 10**6))
def test_a_duration_reads_back_as_no_less(seconds: float) -> None:
    """A client that reads the duration never comes too early, and at most a millisecond too late."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", duration(seconds))
    read = sum(float(number) * units[unit] for number, unit in parts)
    assert seconds - 1e-6 <= read <= seconds + 0.001 + 1e-6

"""The pace of a replay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.pace import CATCH_UP_SECONDS, Pace


def test_none_goes_before_its_time() -> None:
    """The first one goes after its share of a second, and each further one after another."""
    pace = Pace(10.0, begun=100.0)
    assert pace.wait(100.0, 1) == pytest.approx(0.1)
    pace.went(1)
    assert pace.wait(100.1, 5) == pytest.approx(0.5)
    assert pace.wait(101.0, 5) == 0.0


def test_what_stood_still_is_not_followed_by_a_burst() -> None:
    """After an hour without any, no more than a second's worth goes at once."""
    pace = Pace(10.0, begun=0.0)
    gone = 0
    while pace.wait(3600.0, 1) == 0.0:
        pace.went(1)
        gone += 1
    assert gone <= 10 * CATCH_UP_SECONDS + 1


def test_a_rate_of_nothing() -> None:
    """It would never end, and is refused."""
    with pytest.raises(ValueError, match="a rate is above 0"):
        Pace(0.0, 0.0)


@given(st.floats(0.1, 10_000), st.lists(st.integers(1, 500), min_size=1, max_size=50))
def test_who_waits_as_told_keeps_the_rate(rate: float, batches: list[int]) -> None:
    """Whatever the sizes of the batches, all take the time that the rate gives them, and no less."""
    pace, now = Pace(rate, begun=5.0), 5.0
    for count in batches:
        now += pace.wait(now, count)
        pace.went(count)
    assert now - 5.0 == pytest.approx(sum(batches) / rate)

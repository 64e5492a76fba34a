"""Tests of pipeline/clients/retry_after.py."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.retry_after import LONGEST, rate_reset, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "headers,seconds",
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 12 "}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:07 GMT"}, 7.0),
        ({"retry-after": "Fri, 15 Jan 2027 09:00:07 +0100"}, 7.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:07"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST),
        ({"retry-after": "999999999999"}, LONGEST),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_every_form_is_read_and_clamped(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and HTTP-dates are understood; the huge is clamped, the past is now, junk is nothing."""
    assert retry_after(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_whatever_is_sent_the_wait_is_sane(headers: dict[str, str]) -> None:
    """No text makes it raise, or wait less than nothing or longer than the longest."""
    wait = retry_after(headers, NOW)
    assert wait is None or 0.0 <= wait <= LONGEST


@given(st.integers(min_value=0, max_value=int(LONGEST)))
def test_a_date_means_what_it_says(seconds: int) -> None:
    """An HTTP-date and the same wait in seconds are one."""
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert retry_after({"retry-after": date}, NOW) == retry_after({"retry-after": str(seconds)}, NOW) == seconds


@pytest.mark.parametrize(
    "text,seconds",
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3s", LONGEST), ("1.5s", 1.5), ("", None), ("6 m", None)],
)
def test_reset_durations_are_read(text: str, seconds: float | None) -> None:
    """A spent rate limit says when it is full again, as a duration."""
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": text}
    assert rate_reset(headers) == seconds


def test_only_spent_limits_count() -> None:
    """A limit with something left does not make us wait; of two spent ones the later counts."""
    left = {"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "9s"}
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "3s"}
    both = {**spent, "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s"}
    assert (rate_reset(left), rate_reset({**left, **spent}), rate_reset(both)) == (None, 3.0, 9.0)

"""When a server says to come back: `Retry-After` in its forms, read with distrust. Pure.

RFC 9110 section 10.2.3 allows seconds or an HTTP-date; some providers send `retry-after-ms`, or only say when their
rate limits are reset, as durations such as `6m0s` or `20ms`. Values may be huge, negative, in the past or junk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST = 3_600.0
"""Seconds beyond which no server is believed: a typing error must not park work for a year."""

_NUMBER = re.compile(r"\d{1,18}(\.\d{1,18})?", re.ASCII)
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_RATES = ("requests", "tokens")


def retry_after(headers: Mapping[str, str], now: float, longest: float = LONGEST) -> float | None:
    """Return how many seconds after `now` a server wants us back: 0 to `longest`, or None where it says nothing usable.

    `headers` is read by lower-case names.
    """
    exact = _seconds(headers.get("retry-after-ms", ""))
    text = headers.get("retry-after", "").strip()
    wait = exact / 1000 if exact is not None else _seconds(text)
    if wait is None:
        wait = _until(text, now)
    return None if wait is None else min(max(wait, 0.0), longest)


def rate_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the spent ones of a provider's rate limits are full again; None where none is spent."""
    spent = [name for name in _RATES if headers.get(f"x-ratelimit-remaining-{name}", "").strip() == "0"]
    waits = [_duration(headers.get(f"x-ratelimit-reset-{name}", "")) for name in spent]
    known = [wait for wait in waits if wait is not None]
    return min(max(known), LONGEST) if known else None


def _seconds(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _until(text: str, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        return aware.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        return None
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))

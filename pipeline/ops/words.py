"""Times, amounts and counts in words, as all that speaks to operators spells them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.core.headers import MAX_TIME

_LATEST = 253_402_300_799_999  # the last millisecond of the year 9999, where Python's calendar ends


def clean(text: str) -> str:
    """Make text fit for a terminal: what others wrote must not steer it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def when(ms: int) -> str:
    """Spell a time in epoch milliseconds, in UTC, to the millisecond; a dash where it is not known."""
    if ms <= 0:
        return "-"
    return datetime.fromtimestamp(min(ms, _LATEST) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def lasted(ms: int) -> str:
    """Spell a duration in milliseconds in its two largest units."""
    if ms < 1000:
        return f"{max(ms, 0)} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(min(ms, MAX_TIME) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))]
    first = next(index for index, part in enumerate(parts) if not part.startswith("0 "))
    return " ".join(parts[first : first + 2])


def counted(number: int, noun: str) -> str:
    """Count things: `1 record`, `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def dollars(cost: float) -> str:
    """Spell what was paid."""
    return f"{cost:.6f} USD"

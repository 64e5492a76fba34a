"""Which dead letters a person means: one filter for all verbs. Pure; times are passed in."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from pipeline.core.errors import ConfigurationError
from pipeline.core.letter import LetterHead
from pipeline.core.letter_state import STATES

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """What is asked of a letter; what is empty or None asks nothing. Several names in one field mean any of them.

    `reasons` are reason classes or globs of them (`model_*`); `fingerprints` may be cut short, from their beginning.
    Times are epoch milliseconds of the last failure: `since_ms` and later, and before `until_ms`.
    """

    stages: Collection[str] = ()
    reasons: Collection[str] = ()
    fingerprints: Collection[str] = ()
    types: Collection[str] = ()
    tenants: Collection[str] = ()
    jobs: Collection[str] = ()
    traces: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    states: Collection[str] = ()
    letters: Collection[str] = ()

    @property
    def needs_event(self) -> bool:
        """Whether it asks for what an opaque letter tells in its value alone."""
        return bool(self.types or self.tenants or self.jobs)

    @property
    def narrow(self) -> bool:
        """Whether it asks for anything."""
        return self != LetterFilter()

    def headers_only(self) -> LetterFilter:
        """Return what of it the headers of any letter can answer."""
        return replace(self, types=(), tenants=(), jobs=())

    def matches(self, head: LetterHead, state: str = "open") -> bool:
        """Tell whether a letter in `state` is meant."""
        kind, owner = head.kind, head.owner
        return (
            (not self.stages or kind.stage in self.stages)
            and (not self.states or state in self.states)
            and (not self.types or owner.type in self.types)
            and (not self.tenants or owner.tenant in self.tenants)
            and (not self.jobs or head.job in self.jobs)
            and (self.since_ms is None or head.failed_at_ms >= self.since_ms)
            and (self.until_ms is None or head.failed_at_ms < self.until_ms)
            and (not self.reasons or any(fnmatchcase(kind.code, one) for one in self.reasons))
            and (not self.fingerprints or kind.fingerprint.startswith(tuple(self.fingerprints)))
            and (not self.traces or head.trace_id in self.traces)
            and (not self.letters or head.id in self.letters)
        )

    def checked(self) -> LetterFilter:
        """Return itself. Raises ConfigurationError for what could match nothing."""
        unknown = [one for one in self.states if one not in STATES]
        if unknown:
            raise ConfigurationError(f"no state is called {unknown[0]!r}: there are {', '.join(STATES)}")
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            raise ConfigurationError("--since is not before --until: no letter can be in between")
        return self


def span(text: str, option: str) -> float:
    """Read a length of time such as `90s`, `2h` or `3d`, in seconds. Raises ConfigurationError for anything else."""
    told = _AGE.fullmatch(text.strip())
    if told is None:
        raise ConfigurationError(f"{option} {text[:80]!r} is no length of time: give one such as 90s, 15m, 2h or 3d")
    return float(told[1]) * _SECONDS[told[2]]


def moment(text: str, now: float, option: str) -> int:
    """Read a time, an ISO 8601 one (UTC where it names no zone) or an age such as `90s`, `2h`, `3d`, in epoch ms.

    Raises ConfigurationError naming the `option` for anything else.
    """
    if _AGE.fullmatch(text.strip()):
        return max(0, int((now - span(text, option)) * 1000))
    try:
        found = datetime.fromisoformat(text.strip())
        return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option} {text[:80]!r} is no time: give one such as 2026-03-01T09:30, or an age such as 90s, 15m, 2h, 3d"
        ) from None

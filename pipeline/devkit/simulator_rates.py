"""Rate limits as the provider keeps them: a bucket per minute, and how its state is written into headers. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bucket:
    """An allowance of `limit` per minute that refills evenly; `level` is what was left at the time `at` (seconds)."""

    limit: int
    level: float
    at: float

    @classmethod
    def full(cls, limit: int, now: float) -> "Bucket":
        """Start with the whole minute's allowance."""
        return cls(limit, float(limit), now)

    def refilled(self, now: float) -> "Bucket":
        """Bring the level up to `now`; a clock that went back adds nothing."""
        gained = max(0.0, now - self.at) * self.limit / 60
        return replace(self, level=min(float(self.limit), self.level + gained), at=max(now, self.at))

    def wait(self, amount: float) -> float:
        """Seconds until `amount` (at most the limit) is there; 0 when it is there now."""
        return max(0.0, min(amount, self.limit) - self.level) * 60 / self.limit

    def without(self, amount: float) -> "Bucket":
        """Take `amount` out, never below nothing."""
        return replace(self, level=max(0.0, self.level - amount))


@dataclass(frozen=True, slots=True)
class Rates:
    """The two allowances of a key: requests and tokens."""

    requests: Bucket
    tokens: Bucket

    @classmethod
    def full(cls, requests: int, tokens: int, now: float) -> "Rates":
        """Start with both allowances whole."""
        return cls(Bucket.full(requests, now), Bucket.full(tokens, now))

    def take(self, tokens: int, now: float) -> tuple["Rates", float]:
        """Take one request of `tokens` out; the second value is the wait in seconds, 0 when it was granted.

        A request that has to wait takes nothing.
        """
        ready = Rates(self.requests.refilled(now), self.tokens.refilled(now))
        wait = max(ready.requests.wait(1), ready.tokens.wait(tokens))
        if wait > 0:
            return ready, wait
        return Rates(ready.requests.without(1), ready.tokens.without(tokens)), 0.0

    def headers(self) -> Mapping[str, str]:
        """The six `x-ratelimit-*` headers of the state as it is."""
        return {
            "x-ratelimit-limit-requests": str(self.requests.limit),
            "x-ratelimit-limit-tokens": str(self.tokens.limit),
            "x-ratelimit-remaining-requests": str(int(self.requests.level)),
            "x-ratelimit-remaining-tokens": str(int(self.tokens.level)),
            "x-ratelimit-reset-requests": duration(self.requests.wait(self.requests.limit)),
            "x-ratelimit-reset-tokens": duration(self.tokens.wait(self.tokens.limit)),
        }


def duration(seconds: float) -> str:
    """Write a time as the reset headers do: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up to a millisecond."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    tail = f"{rest / 1000:g}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail

"""How the simulator behaves when no fault is in force, and where it gets its time from."""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import NormalDist


def chance(seed: int, turn: int) -> float:
    """A number in [0, 1) that looks random and is the same for the same seed and turn in every process."""
    digest = hashlib.blake2b(f"{seed}:{turn}".encode(), digest_size=8).digest()
    # 53 bits: all that a float holds, so that the largest quotient stays below 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds to the first byte of an answer, and per token of it.

    The first is `median` times a log-normal factor of spread `sigma` (0: always the median; 0.5: one call in twenty
    takes more than 2.3 times the median), the shape that the latencies of providers have. The same call of the same
    seed always takes as long.
    """

    median: float = 0.0
    sigma: float = 0.0
    per_token: float = 0.0
    seed: int = 0

    def first(self, index: int) -> float:
        """Seconds until the call of this index starts to be answered."""
        if not self.sigma:
            return self.median
        # Half a step up, as the quantile of 0 would be infinitely far down.
        quantile = (1 - 2**-53) * chance(self.seed, index) + 2**-54
        return self.median * math.exp(self.sigma * NormalDist().inv_cdf(quantile))


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """The simulator's settings.

    `port` 0 takes a free one. `api_key` None takes any key. `models` are the known ones; when empty, any is. `capacity`
    is the most calls in flight (chat and embeddings apart): one over it gets a 429 at once. `sentences` is the most
    that an answer quotes, `text_tokens` the longest text that is embedded. `journal_capacity` is how many calls are
    remembered.
    """

    port: int = 0
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    latency: Latency = Latency()
    capacity: int | None = None
    requests_per_minute: int = 1_000_000
    tokens_per_minute: int = 1_000_000_000
    context_tokens: int = 128_000
    text_tokens: int = 8_192
    sentences: int = 3
    journal_capacity: int = 100_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SimulatorClock:
    """The simulator's time: seconds that only grow, the date, and how to wait. Replaced in tests."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

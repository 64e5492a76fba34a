"""One benchmark after the other: within the time, and each failure for itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.failure import reason
from tests.bench.figures import Figure, write

WHOLE_SECONDS = 38 * 60.0
"""After so long no benchmark goes on: a whole run ends within 40 minutes."""

BENCHMARK_SECONDS = 8 * 60.0
"""After so long a benchmark is cut."""


@dataclass(slots=True)
class Run:
    """One run of benchmarks: what they found, and how many could not be measured. One that fails stops alone.

    `results` is the file that has what is known so far; `seconds` is the most that a benchmark has.
    """

    results: Path
    seconds: float = BENCHMARK_SECONDS
    figures: list[Figure] = field(default_factory=list)
    failures: int = 0
    began: float = field(default_factory=time.monotonic)

    async def take(self, name: str, about: str, measured: Callable[[], Awaitable[list[Figure]]]) -> None:
        """Measure one benchmark, within what is left of the time, and write what is known so far."""
        spent = time.monotonic() - self.began
        print(f"{spent / 60:.0f} min: {about}", flush=True)
        limit = asyncio.timeout(self._left(spent))
        try:
            async with limit:
                self.figures += await measured()
        except Exception as error:
            why = f"its time of {self._left(spent):.0f} s was over" if limit.expired() else reason(error)
            self.fail(f"{name} was not measured: {why}")
        write(self.figures, self.results)

    def _left(self, spent: float) -> float:
        return max(1.0, min(self.seconds, WHOLE_SECONDS - spent))

    def fail(self, sentence: str) -> None:
        """Tell of what could not be measured."""
        self.failures += 1
        print(sentence, file=sys.stderr, flush=True)

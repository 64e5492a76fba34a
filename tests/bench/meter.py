"""Measuring a loop from inside its process: the rate and the CPU time of a steady stretch of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

WARM_UP_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one variant: records a second, CPU time of the process in us a record, and all records it ended.

    `fetched` is how many its client fetched for each that it handed over, where that was counted.
    """

    rate: float
    cpu_us: float
    records: int
    fetched: float = 0.0

    def write(self, path: Path) -> None:
        """Leave the sample for who started this process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(path: Path) -> Sample:
    """Read what a variant has left."""
    return Sample(**json.loads(path.read_text(encoding="utf-8")))


class Meter:
    """Told now and then how many records are done, measures from the end of a warm-up on.

    It is over after `seconds`, or where nine tenths of `available` records are done: the last ones come in no steady
    flow. The warm-up ends at a third of them at the latest. Records in flight at both ends of the stretch cancel out,
    and so do bursts: only a moment at which more is done than before counts.
    """

    def __init__(
        self,
        seconds: float,
        available: int,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        """Begin the warm-up with the first record that is done. `clock` and `cpu` are in seconds."""
        self._clock = clock
        self._cpu = cpu
        self._seconds = seconds
        self._enough = available * 9 // 10
        self._warm = available // 3
        self._done = 0
        self._first: float | None = None
        self._from: tuple[float, float, int] | None = None
        self._to: tuple[float, float, int] | None = None

    def note(self, done: int) -> bool:
        """Take note that `done` records are done so far; True where enough is known."""
        if done == self._done:
            return False
        self._done, now = done, self._clock()
        if self._first is None:
            self._first = now
        elif self._from is None:
            if now - self._first >= WARM_UP_SECONDS or done >= self._warm:
                self._from = (now, self._cpu(), done)
        elif now - self._from[0] >= self._seconds or done >= self._enough:
            self._to = (now, self._cpu(), done)
        return self._to is not None

    def sample(self, records: int) -> Sample:
        """Return what was measured, of a variant that ended `records` records in all."""
        if self._from is None or self._to is None:
            raise RuntimeError("the variant ended before it was measured")
        began, cpu_before, before = self._from
        ended, cpu, done = self._to
        count = done - before
        return Sample(count / (ended - began), (cpu - cpu_before) / count * 1e6, records)

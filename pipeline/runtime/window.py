"""The window: how much a feed may have taken and not settled. Bounded, with hysteresis (design section 6.6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """Bounds of one feed. `buffer` counts records ready to be handled beyond those being handled.

    `records` and `bytes` bound everything taken, also what waits behind its key. One key may hold a quarter.
    """

    buffer: int
    records: int
    bytes: int = 64 * 1024 * 1024

    @property
    def key_share(self) -> int:
        """How many records of one key may wait before their partition does."""
        return max(1, self.records // 4)

    def part_share(self, concurrency: int, parts: int) -> int:
        """How many records one of `parts` partitions may hold: the client hands them over in blocks of one partition,
        and a window full of one block would leave slots without keys while the other partitions wait."""
        return max(2 * concurrency, self.records // max(parts, 1))

    @property
    def in_place_share(self) -> int:
        """How many deferred records may wait in place."""
        return max(1, self.records // 4)


def limits_for(concurrency: int) -> WindowLimits:
    """Derive the bounds from a stage's concurrency.

    The buffer of two more concurrencies hides the up to 0.7 s that a paused consumer needs to get going again; sixteen
    times the concurrency lets enough different keys in when many records of few keys stand together.
    """
    return WindowLimits(buffer=max(2 * concurrency, 256), records=max(16 * concurrency, 512))


class Window:
    """Counts of one feed, and whether it is full: from the first bound reached until all are down to half.

    It also opens above half where nothing is ready: what is left then waits behind a few slow keys, and slots idle.
    `jammed` counts those of `open` that wait behind a key with more than its share. Their partition is paused by itself
    and they do not count against the others.
    """

    __slots__ = ("bytes", "full", "jammed", "limits", "open", "ready")

    def __init__(self, limits: WindowLimits) -> None:
        """Begin empty."""
        self.limits = limits
        self.ready = 0
        self.open = 0
        self.jammed = 0
        self.bytes = 0
        self.full = False

    @property
    def filled(self) -> bool:
        """Whether a bound is reached, be it for a moment only."""
        limit = self.limits
        return self.ready >= limit.buffer or self.open - self.jammed >= limit.records or self.bytes >= limit.bytes

    def update(self) -> bool:
        """Recompute `full`; True where it changed."""
        limit, flowing = self.limits, self.open - self.jammed
        if self.full:
            full = (
                self.ready > limit.buffer // 2
                or self._high(flowing, limit.records)
                or self._high(self.bytes, limit.bytes)
            )
        else:
            full = self.filled
        changed = full != self.full
        self.full = full
        return changed

    def _high(self, count: int, bound: int) -> bool:
        return count > bound // 2 and (self.ready > 0 or count >= bound)

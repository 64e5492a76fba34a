"""The contiguous commit frontier of one partition. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator


class Taken:
    """A record that was taken and is not settled until `settled` says so."""

    __slots__ = ("offset", "settled")

    def __init__(self, offset: int) -> None:
        """Begin unsettled."""
        self.offset = offset
        self.settled = False


class Frontier:
    """Which offset of a partition may be committed: everything below it is settled.

    Gaps between offsets (compaction, transaction markers) count as settled, so with nothing open the frontier is the
    consumer's position and lag reaches 0.
    """

    __slots__ = ("_next", "_open")

    def __init__(self) -> None:
        """Begin with nothing taken."""
        self._open: deque[Taken] = deque()
        self._next: int | None = None

    def take(self, taken: Taken) -> None:
        """Add a record; offsets arrive in rising order."""
        self._open.append(taken)

    def settle(self, taken: Taken) -> None:
        """Mark a record as settled, in any order; doing it twice changes nothing."""
        taken.settled = True
        opened = self._open
        while opened and opened[0].settled:
            self._next = opened.popleft().offset + 1

    def offset(self, position: int | None = None) -> int | None:
        """Return the offset to commit, or None while nothing was settled. `position` is where reading stands."""
        if self._open:
            return None if self._next is None else self._open[0].offset
        known = [offset for offset in (self._next, position) if offset is not None]
        return max(known, default=None)

    def unsettled(self) -> Iterator[Taken]:
        """Go through what is still owed, oldest first."""
        return (taken for taken in self._open if not taken.settled)

    def __len__(self) -> int:
        """Count what stands between the frontier and the newest record."""
        return len(self._open)

"""The commit frontier of one partition, and what is settled beyond it. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise


class Taken:
    """A record that was taken and is not settled until `settled` says so."""

    __slots__ = ("offset", "settled")

    def __init__(self, offset: int) -> None:
        """Begin unsettled."""
        self.offset = offset
        self.settled = False


class Frontier:
    """Which offset of a partition may be committed (everything below it is settled), and the offset map beyond it.

    Gaps between offsets (compaction, transaction markers) count as settled, so with nothing open the frontier is the
    consumer's position and lag reaches 0. `known`: what a former owner has settled, ascending and disjoint; those
    records are not taken again, and stay in the map until the frontier has passed them. `top` is the offset after the
    newest record, `owed` the number of those taken and not settled.
    """

    __slots__ = ("_known", "_next", "_open", "owed", "top")

    def __init__(self, known: Sequence[range] = ()) -> None:
        """Begin with nothing taken."""
        self._open: deque[Taken] = deque()
        self._next: int | None = None
        self._known = deque(known)
        self.top = 0
        self.owed = 0

    def has(self, offset: int) -> bool:
        """Whether a former owner has settled `offset`; asked once for each record, in rising order, before `take`."""
        known = self._known
        while known and known[0].stop <= offset:
            known.popleft()
        if not known or offset < known[0].start:
            return False
        self.top = offset + 1
        if not self._open:
            self._next = self.top
        return True

    def take(self, taken: Taken) -> None:
        """Add a record; offsets arrive in rising order."""
        self._open.append(taken)
        self.top = taken.offset + 1
        self.owed += 1

    def settle(self, taken: Taken) -> None:
        """Mark a record as settled, in any order; doing it twice changes nothing."""
        if taken.settled:
            return
        taken.settled = True
        self.owed -= 1
        opened = self._open
        while opened and opened[0].settled:
            self._next = opened.popleft().offset + 1
        if not opened:
            self._next = self.top

    def offset(self, position: int | None = None) -> int | None:
        """Return the offset to commit, or None while nothing was settled. `position` is where reading stands."""
        if self._open:
            moved = self._next is not None or self.owed < len(self._open)
            return self._open[0].offset if moved else None
        reached = [offset for offset in (self._next, position) if offset is not None]
        return max(reached, default=None)

    def settled(self, frontier: int) -> tuple[range, ...]:
        """Return the offset map: ascending, disjoint ranges beyond `frontier`.

        That is what `offset` has returned, or, at most once, what was begun: records below it may stand open.
        """
        unsettled = [taken.offset for taken in self._open if not taken.settled]
        holes = [
            range(start, following)
            for one, following in pairwise([*unsettled, self.top])
            if (start := max(one + 1, frontier)) < following
        ]
        ahead = [range(max(one.start, self.top, frontier), one.stop) for one in self._known]
        return tuple(_joined([*holes, *ahead]))

    def supposing(self, done: Collection[Taken]) -> Frontier:
        """Return what this frontier would be with all of `done` settled; this one stays as it is."""
        twin = Frontier(tuple(self._known))
        twin._next, twin.top = self._next, self.top
        for taken in self._open:
            settled = taken.settled or taken in done
            if settled and not twin._open:
                twin._next = taken.offset + 1
                continue
            copy = Taken(taken.offset)
            copy.settled = settled
            twin._open.append(copy)
            twin.owed += not settled
        if self._open and not twin._open:
            twin._next = twin.top
        return twin

    @property
    def first(self) -> int | None:
        """The oldest record that stands open."""
        return self._open[0].offset if self._open else None

    @property
    def span(self) -> int:
        """How many offsets stand between the frontier and the newest record."""
        return self.top - self._open[0].offset if self._open else 0

    def unsettled(self) -> Iterator[Taken]:
        """Go through what is still owed, oldest first."""
        return (taken for taken in self._open if not taken.settled)

    def __len__(self) -> int:
        """Count what stands between the frontier and the newest record."""
        return len(self._open)


def _joined(ranges: Sequence[range]) -> Iterator[range]:
    """Join ranges that touch, and drop empty ones."""
    last = range(0)
    for one in filter(None, ranges):
        if last and one.start == last.stop:
            last = range(last.start, one.stop)
            continue
        if last:
            yield last
        last = one
    if last:
        yield last

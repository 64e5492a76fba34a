"""What is known of the answers to the records of one assigned partition. Pure: the reading is `follow`'s.

Bounded: only what settles a record at or beyond the commit frontier is kept here, which is no more than was written
since the last acknowledged commit. The ids of older answers are in `Recent`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from pipeline.core.offset_map import Progress, mark
from pipeline.core.record import Commit, Partition

K = TypeVar("K", bound=Hashable)
Held = TypeVar("Held")

RECENT = 50_000
"""Ids kept of answered events, for the same event at another offset (`follow.LOOK_BACK` tells what that leads to). An
upstream stage that repeats does so within its window, of a few hundred records, or of what was not committed at a
crash, of about as many; so this is plenty for all partitions of a process together, and takes 10 MB."""

MARK_SECONDS = 5.0
"""How often a commit is renewed for no other reason than that less would have to be read after it."""


class Recent(Generic[K]):
    """The last `limit` keys; the oldest go."""

    def __init__(self, limit: int = RECENT) -> None:
        """Begin empty."""
        self._keys: dict[K, None] = {}
        self._limit = limit

    def add(self, key: K) -> None:
        """Keep a key, as the newest."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]

    def discard(self, key: K) -> None:
        """Forget a key, if it is known."""
        self._keys.pop(key, None)

    def __contains__(self, key: K) -> bool:
        """Tell whether a key is still known."""
        return key in self._keys

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._keys)


class Answers(Generic[Held]):
    """The answers to one assignment's records, and the calls that its former owner still finishes.

    `begin` is where each followed partition is to be read from; `goal` how far it must be read before the next step
    (`caught_up` for the first time; `given_up`: calls handed over whose owner's time is over, or who is gone;
    `doubtful`: this process stood still, and `asked` since how far others came meanwhile). `handed` are the calls that
    others finish, `owners` by offset who, where that is known. `parked` are records taken and held back until their
    answer is read, by offset.
    """

    def __init__(self, commit: Commit | None, former: Progress, follows: Sequence[Partition]) -> None:
        """Know what the former owner has left word of."""
        self.commit = commit
        self.follows = follows
        self.begin = {name: former.followed.get(mark(name.topic), 0) for name in follows}
        self.goal: Mapping[Partition, int] | None = None
        self.caught_up = False
        self.given_up: set[int] = set()
        self.doubtful = False
        self.asked = False
        self.handed = set(former.handed)
        self.owners = dict(former.owners)
        self.until = former.until if former.handed else 0
        self.parked: dict[int, Held] = {}
        self._floor = commit.offset if commit else 0
        self._found: dict[tuple[int, int | None], dict[int, tuple[Partition, int]]] = {}
        self._whole: set[tuple[int, int | None]] = set()
        self._said: tuple[int, Progress, float] | None = None

    def hear(self, offset: int, part: tuple[int, int], place: tuple[Partition, int], stamp: int | None = None) -> bool:
        """Note that the record at `place` is a part (index, total) of what settles `offset`; True where that is all.

        `stamp` is the timestamp of the record that it settles, None where that is not told.
        """
        if offset < self._floor:
            return False
        index, total = part
        found = self._found.setdefault((offset, stamp), {})
        found[index] = place
        if len(found) >= total:
            self._whole.add((offset, stamp))
        return (offset, stamp) in self._whole

    def has(self, offset: int, stamp: int) -> bool:
        """Whether the record at `offset`, written at `stamp` (as it has it), is settled by what was read."""
        return (offset, stamp) in self._whole or (offset, None) in self._whole

    def __len__(self) -> int:
        """Count the records of which something is known."""
        return len(self._found)

    @property
    def awaited(self) -> dict[int, int]:
        """Who finishes which call, as far as that is known and not given up."""
        waited = self.handed - self.given_up
        return {offset: owner for offset, owner in self.owners.items() if offset in waited}

    def left(self, reached: Mapping[Partition, int]) -> int:
        """Count what is still to be read up to the goal."""
        return sum(max(end - reached.get(name, 0), 0) for name, end in (self.goal or {}).items())

    def progress(
        self, frontier: int, settled: tuple[range, ...], reached: Mapping[Partition, int], now: float
    ) -> Progress:
        """Say what goes with a commit of `frontier`; what is settled by then is forgotten."""
        self._floor = max(self._floor, frontier)
        self._forget(settled)
        handed = tuple(sorted(offset for offset in self.handed if not self._is_settled(offset, settled)))
        owners = {offset: self.owners[offset] for offset in handed if offset in self.owners}
        said = Progress(settled, handed, self.until if handed else 0, owners=owners)
        if self._said is not None:
            before, known, at = self._said
            if now < at + MARK_SECONDS and (before, known) == (frontier, replace(said, followed=known.followed)):
                return known
        said = replace(said, followed=self._marks(reached))
        self._said = (frontier, said, now)
        return said

    def _marks(self, reached: Mapping[Partition, int]) -> dict[int, int]:
        """Say below which offsets nothing answers an unsettled record: all that was read and is not needed any more."""
        if not self.caught_up:
            return {mark(name.topic): offset for name, offset in self.begin.items() if offset}
        lowest = {name: reached[name] for name in self.follows if name in reached}
        for places in self._found.values():
            for name, offset in places.values():
                if name in lowest:
                    lowest[name] = min(lowest[name], offset)
        return {mark(name.topic): offset for name, offset in lowest.items() if offset}

    def _forget(self, settled: Sequence[range]) -> None:
        gone = [known for known in self._found if self._is_settled(known[0], settled)]
        for known in gone:
            del self._found[known]
            self._whole.discard(known)

    def _is_settled(self, offset: int, settled: Sequence[range]) -> bool:
        if offset < self._floor:
            return True
        place = bisect_right(settled, offset, key=lambda one: one.start) - 1
        return place >= 0 and offset in settled[place]

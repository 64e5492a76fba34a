"""What happened when a second worker joined a first one, from the calls of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.calls import Call

SETTLE_SECONDS = 0.2
"""What a worker has, when partitions are taken from it, to settle what is done (design section 6.4)."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What two workers have called, the second of which joined at `at`, and which was seen until `until`."""

    old: Sequence[Call]
    new: Sequence[Call]
    at: float
    until: float

    @property
    def moved(self) -> set[int]:
        """The partitions that went to the second worker."""
        return {call.partition for call in self.new}

    def stops(self) -> Mapping[int, float]:
        """Return the longest time without a call of each partition, in seconds, from the joining on."""
        times = defaultdict[int, list[float]](list)
        for call in sorted([*self.old, *self.new], key=lambda call: call.began):
            times[call.partition].append(call.began)
        return {number: self._longest(times[number]) for number in sorted(times)}

    def moved_stop(self) -> float:
        """Return the longest standstill of a partition that moved."""
        stops = self.stops()
        return max(stops[number] for number in self.moved)

    def kept_stop(self) -> float:
        """Return the longest standstill of a partition that stayed."""
        stops = self.stops()
        return max((stops[number] for number in stops.keys() - self.moved), default=0.0)

    def _longest(self, times: Sequence[float]) -> float:
        seen = [time for time in times if self.at <= time <= self.until]
        before = max((time for time in times if time < self.at), default=self.at)
        return max(later - earlier for earlier, later in zip([before, *seen], [*seen, self.until], strict=True))

    def killed(self) -> list[Call]:
        """Find calls of the first worker that were cut, or whose end came to nothing, though it could be settled.

        Those of a partition that it kept could all end. Of a partition that moved, those could that were due before it
        had to let go, which is after it last began a call there, and `SETTLE_SECONDS` more.
        """
        moved, let_go = self.moved, self._let_go()
        kept = [call for call in self.old if call.partition not in moved and not call.ended]
        return kept + [call for call in self._repeated() if 0 < call.due - let_go[call.partition] <= SETTLE_SECONDS]

    def repeated(self) -> list[Call]:
        """Find calls of the first worker that ended before it let go of their partition, and that the second repeats.

        Their ends were settled, but beyond a record that was not: only a map in the commit tells of them.
        """
        let_go = self._let_go()
        return [call for call in self._repeated() if call.due <= let_go[call.partition]]

    def _repeated(self) -> list[Call]:
        again = {(call.partition, call.offset) for call in self.new}
        return [call for call in self.old if (call.partition, call.offset) in again]

    def _let_go(self) -> Mapping[int, float]:
        return {number: max((c.began for c in self.old if c.partition == number), default=0.0) for number in self.moved}

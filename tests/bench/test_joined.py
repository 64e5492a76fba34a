"""What is made of the calls of two workers, the second of which joined."""

from __future__ import annotations

from tests.bench.calls import Call
from tests.bench.joined import Joined

KEPT, MOVED = 0, 1


def _calls(partition: int, first: int, began: float, count: int) -> list[Call]:
    """One call a second, each of which ends at once."""
    times = [began + number for number in range(count)]
    return [Call(partition, first + number, time, time, True) for number, time in enumerate(times)]


def test_a_standstill_is_the_longest_time_without_a_call_from_the_joining_on() -> None:
    """A partition that moved stands still from its last call at the old worker to the first at the new one."""
    old = [*_calls(MOVED, 0, 0.0, 11), *_calls(KEPT, 0, 0.0, 12), *_calls(KEPT, 12, 13.5, 6)]
    joined = Joined(old, _calls(MOVED, 11, 14.0, 6), at=10.0, until=19.5)
    assert joined.moved == {MOVED}
    assert joined.stops() == {KEPT: 2.5, MOVED: 4.0}
    assert (joined.moved_stop(), joined.kept_stop()) == (4.0, 2.5)


def test_what_happened_before_the_joining_does_not_count() -> None:
    """The standstill of the start is not the second worker's; one that lasts at the joining is, from where it began."""
    old = [*_calls(KEPT, 0, 0.0, 1), *_calls(KEPT, 1, 9.0, 1), *_calls(KEPT, 2, 11.0, 9)]
    assert Joined(old, _calls(MOVED, 0, 12.0, 1), at=10.0, until=19.5).stops()[KEPT] == 2.0


def test_calls_that_could_be_settled_and_were_not_are_killed() -> None:
    """A call that was cut where its partition stayed, and one that was soon over where it moved, but is repeated."""
    cut = Call(KEPT, 5, 10.0, 13.0, False)
    soon = Call(MOVED, 7, 10.0, 10.1, True)
    late = Call(MOVED, 6, 9.0, 12.0, True)
    settled = Call(MOVED, 5, 9.0, 9.1, True)
    once = Call(MOVED, 4, 9.0, 9.1, True)
    again = [Call(MOVED, number, 15.0, 15.1, True) for number in (5, 6, 7)]
    joined = Joined([cut, soon, late, settled, once], again, at=9.5, until=20.0)
    assert joined.killed() == [cut, soon]
    assert joined.repeated() == [settled]

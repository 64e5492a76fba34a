"""Of all that is shown, the newest few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.record import Position
from pipeline.ops.newest import Newest


@given(st.lists(st.integers(0, 5)), st.integers(0, 4))
def test_the_newest_are_kept(times: list[int], most: int) -> None:
    """However many there are, no more than asked for; of one time, those that stand later."""
    newest = Newest[int](most)
    for offset, at_ms in enumerate(times):
        newest.add(at_ms, Position("a", 0, offset), offset)
    expected = sorted(range(len(times)), key=lambda offset: (times[offset], offset), reverse=True)
    assert expected[:most] == newest.taken()

"""The window of one feed: full at the first bound, open again at half of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.window import Window, WindowLimits, limits_for

LIMITS = WindowLimits(buffer=8, records=100, bytes=1_000)


def test_limits_grow_with_concurrency_and_never_vanish() -> None:
    """A stage of one slot still has a buffer and a window; a large one has room for sixteen keys a slot."""
    assert limits_for(1) == WindowLimits(buffer=256, records=512)
    assert limits_for(200) == WindowLimits(buffer=400, records=3200)


def test_shares_are_a_quarter_and_at_least_one() -> None:
    """One key, and what waits in place, may hold a quarter of the window; never nothing."""
    assert (LIMITS.key_share, LIMITS.in_place_share) == (25, 25)
    tiny = WindowLimits(buffer=1, records=1)
    assert (tiny.key_share, tiny.in_place_share) == (1, 1)


@pytest.mark.parametrize("field, bound", [("ready", 8), ("open", 100), ("bytes", 1_000)])
def test_any_bound_fills_it_and_half_of_that_opens_it(field: str, bound: int) -> None:
    """Full from the bound on; open again only at half, so that it does not flutter."""
    window = Window(LIMITS)
    window.ready = 1
    setattr(window, field, bound - 1)
    assert not window.update()
    setattr(window, field, bound)
    assert window.update()
    assert window.full
    setattr(window, field, bound // 2 + 1)
    assert not window.update()
    assert window.full
    setattr(window, field, bound // 2)
    assert window.update()
    assert not window.full


def test_with_nothing_ready_it_opens_below_the_bound() -> None:
    """What is left waits behind a few slow keys: to wait for half of it as well would leave the slots idle."""
    window = Window(LIMITS)
    window.open = 100
    assert window.update()
    window.open = 99
    assert window.update()
    assert not window.full


def test_what_is_jammed_counts_against_its_own_partition_only() -> None:
    """Records behind a key with more than its share do not fill the window for the others."""
    window = Window(LIMITS)
    window.open, window.jammed = 150, 60
    assert not window.update()
    window.jammed = 50
    assert window.update()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 150), st.integers(0, 50), st.integers(0, 1_500))))
def test_it_is_full_between_the_bound_and_the_half(steps: list[tuple[int, int, int, int]]) -> None:
    """For any history: at or over a bound it is full, at or below half of all it is not, in between it stays."""
    window, full = Window(LIMITS), False
    bounds = (LIMITS.buffer, LIMITS.records, LIMITS.bytes)
    for ready, opened, jammed, size in steps:
        window.ready, window.open, window.jammed, window.bytes = ready, opened + jammed, jammed, size
        counts = (ready, opened, size)
        if any(count >= bound for count, bound in zip(counts, bounds, strict=True)):
            expected = True
        elif ready == 0 or all(count <= bound // 2 for count, bound in zip(counts, bounds, strict=True)):
            expected = False
        else:
            expected = full
        assert window.update() == (expected != full)
        assert window.full == expected
        full = expected

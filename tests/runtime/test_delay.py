"""When a record of a tier may go on."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.record import Record
from pipeline.core.retry import TIERS, Tier
from pipeline.runtime.delay import CLOCK_MARGIN, Move, Release, Rest, exit_time, onward

TENS, MINUTE, TEN_MINUTES = TIERS


def written(timestamp_ms: int) -> Record:
    """Make a record with this timestamp."""
    return Record("t.work.retry.10s", 0, 0, None, b"", timestamp_ms=timestamp_ms)


def test_a_record_leaves_its_tier_after_exactly_its_delay() -> None:
    """The delay counts from when the copy was written, however late it is looked at."""
    assert exit_time(written(1_000_000), TENS, now=1_003.0) == 1_010.0
    assert exit_time(written(1_000_000), TENS, now=9_999.0) == 1_010.0


def test_what_a_replay_brought_back_does_not_wait() -> None:
    """Due when it was written, it leaves at once; a later copy of it waits like any other."""
    replayed = replace(written(1_000_000), headers=((h.REPLAY_ID, b"r"), (h.NOT_BEFORE, b"999999")))
    assert exit_time(replayed, TENS, now=1_003.0) == 1_000.0
    again = replace(written(1_000_000), headers=((h.REPLAY_ID, b"r"), (h.NOT_BEFORE, b"1010000")))
    assert exit_time(again, TENS, now=1_003.0) == 1_010.0
    short = replace(written(1_000_000), headers=((h.NOT_BEFORE, b"999999"),))
    assert exit_time(short, TENS, now=1_003.0) == 1_010.0
    assert exit_time(replayed, TENS, now=999.0) == 1_009.0


def test_a_timestamp_that_is_absent_or_ahead_counts_as_now() -> None:
    """Without a usable timestamp the whole delay is waited from now on: late, never early."""
    for timestamp in (-1, 0, 1_000_001, 9_000_000):
        assert exit_time(written(timestamp), MINUTE, now=1_000.0) == 1_060.0


def test_what_is_due_is_released() -> None:
    """A second after its time, for clocks differ, a record is handled; one that has no time at once."""
    assert onward(99.0, 100.0) == Release()
    assert onward(99.5, 100.0) == Rest(100.5)
    assert onward(0.0, 0.5) == Release()


def test_a_rest_below_the_smallest_tier_waits_in_place() -> None:
    """Nine seconds fit no tier."""
    assert onward(108.0, 100.0) == Rest(109.0)


def test_a_longer_rest_moves_to_the_largest_tier_that_fits() -> None:
    """The chain for 670 s: ten minutes, one minute, ten seconds, and the second for other clocks in place."""
    assert onward(670.0, 0.0) == Move(TEN_MINUTES, 670.0)
    assert onward(670.0, 600.0) == Move(MINUTE, 670.0)
    assert onward(670.0, 660.0) == Move(TENS, 670.0)
    assert onward(670.0, 670.0) == Rest(671.0)
    assert onward(670.0, 671.0) == Release()


@given(wait=st.floats(0, 100_000), now=st.floats(1.0, 2e9))
def test_a_wait_of_any_length_ends_neither_early_nor_late(wait: float, now: float) -> None:
    """Walking the tiers ends a second after `not_before`, or half a second later, in as few steps as they allow."""
    start, not_before, steps = now, now + wait, 0
    while not isinstance(step := onward(not_before, now), Release):
        steps += 1
        if isinstance(step, Rest):
            now = step.until
            continue
        assert step.not_before == not_before
        now = exit_time(written(int(now * 1000)), step.tier, now)
    assert not_before + CLOCK_MARGIN <= now
    # A millisecond of each tier is lost where the timestamp is cut; half a second is the tiers' rounding.
    assert now <= max(not_before + CLOCK_MARGIN + 0.51, start)
    assert steps <= wait / TEN_MINUTES.delay + 9 + 5 + 2


def test_any_tier_is_known_by_its_delay_alone() -> None:
    """The decision needs a delay, not a name: a stage's own tiers work the same."""
    assert exit_time(written(1_000), Tier("5s", 5.0), now=2.0) == 6.0

"""The flood guard: a run or a share of dead letters is a flood; life between them, or a person's word, is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.flood import FloodGuard, FloodLimits

LIMITS = FloodLimits(run=5, window=20, ratio=0.5)


def deaths(guard: FloodGuard, most: int = 100) -> int:
    """Count how many dead letters the guard lets pass in a row."""
    return next((count for count in range(most) if not guard.died()), most)


def test_a_run_is_stopped_before_its_last() -> None:
    """The record that completes the run stays where it is, and so does each that follows."""
    guard = FloodGuard(LIMITS)
    assert deaths(guard) == 4
    assert not guard.died()
    assert guard.describe() == "5 records in a row"


def test_life_ends_a_run() -> None:
    """One record that came to another end, and the count begins anew."""
    guard = FloodGuard(LIMITS)
    for _ in range(3):
        assert deaths(guard, 4) == 4
        guard.lived()


def test_a_share_is_a_flood_too() -> None:
    """Every other record dying is one, though no run is ever long; it takes a full window to say so."""
    guard = FloodGuard(LIMITS)
    passed = 0
    while guard.died():
        guard.lived()
        passed += 1
    assert passed == 10
    assert guard.describe() == "11 of the last 21 records"


@given(st.integers(0, 1_000))
def test_a_flood_survives_a_restart(before: int) -> None:
    """Each new worker lets at most as many pass as are missing to a run; with a whole run behind it, not one."""
    guard = FloodGuard(LIMITS, before)
    assert deaths(guard) == max(0, 4 - before)


def test_after_a_restart_life_ends_the_flood() -> None:
    """A mended stage that handles one record has its whole allowance again."""
    guard = FloodGuard(LIMITS, before=1_000)
    guard.lived()
    assert deaths(guard) == 4


def test_a_person_can_let_some_pass() -> None:
    """So many are not counted, whatever came before; the flood is one again right after them."""
    guard = FloodGuard(LIMITS, before=1_000, accepted=50)
    assert deaths(guard) == 50


@given(st.lists(st.booleans(), max_size=300))
def test_it_never_lets_a_flood_pass(ends: list[bool]) -> None:
    """Of what it lets pass there is never a run, and never the share in a whole window."""
    guard, passed = FloodGuard(LIMITS), list[bool]()
    for dead in ends:
        if not dead:
            guard.lived()
        elif not guard.died():
            continue
        passed.append(dead)
        assert not (len(passed) >= 5 and all(passed[-5:]))
        assert not (len(passed) > 20 and passed[-1] and sum(passed[-20:]) > 10)


@pytest.mark.parametrize("wrong", [{"run": 0}, {"window": 0}, {"ratio": 0}, {"ratio": 1.1}])
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    """At declaration."""
    with pytest.raises(ValueError, match="flood limits"):
        FloodLimits(**wrong)  # type: ignore[arg-type]  # wrong on purpose

"""What may become of a letter's state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.letter_state import MOVES, STATES, UNDONE, Move, State, after, refusal

moves = st.lists(st.sampled_from(MOVES), max_size=12)


def walk(made: list[Move]) -> list[State]:
    """Make those of the moves that are allowed, from open on; returns every state on the way."""
    way: list[State] = ["open"]
    for move in made:
        if not refusal(way[-1], move):
            way.append(after(way[-1], move))
    return way


@given(moves)
def test_purged_is_the_end(made: list[Move]) -> None:
    """Whatever is tried afterwards; and a letter never leaves the states that there are."""
    way = walk(made)
    assert set(way) <= set(STATES)
    assert "purged" not in way[:-1]


@given(moves)
def test_a_letter_can_be_worked_on_until_it_is_purged(made: list[Move]) -> None:
    """From any other state it can be brought to where somebody works on it, by reopening at most."""
    state = walk(made)[-1]
    if state not in (*UNDONE, "purged"):
        assert after(state, "reopen") in UNDONE


@given(st.sampled_from(STATES), st.sampled_from(MOVES))
def test_a_move_is_made_or_refused_in_words(state: State, move: Move) -> None:
    """Never both, never neither."""
    why = refusal(state, move)
    if not why:
        assert after(state, move) in STATES
        return
    with pytest.raises(ValueError, match=move):
        after(state, move)


def test_what_was_brought_to_an_end_is_not_replayed() -> None:
    """A letter that is resolved, quarantined or purged has to be reopened first, or cannot be."""
    refused = {state for state in STATES if refusal(state, "replay")}
    assert {"resolved", "quarantined", "purged"} == refused
    assert "reopen it first" in refusal("quarantined", "replay")
    assert "nothing brings it back" in refusal("purged", "reopen")
    assert "it is purged already" == refusal("purged", "purge")

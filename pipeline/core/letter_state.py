"""What was done about a dead letter, as the compacted state topic tells: a small machine, and why it refuses a move.

A letter without an entry is open. `purged` is the end: the letter's record may be deleted at any time from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

State = Literal["open", "assigned", "replayed", "resolved", "quarantined", "purged"]
Move = Literal["assign", "replay", "resolve", "reopen", "quarantine", "purge"]

STATES: tuple[State, ...] = get_args(State)
MOVES: tuple[Move, ...] = get_args(Move)
UNDONE: tuple[State, ...] = ("open", "assigned")
"""The states of letters that somebody still has to work on."""

_TO: Mapping[Move, State] = {
    "assign": "assigned",
    "replay": "replayed",
    "resolve": "resolved",
    "reopen": "open",
    "quarantine": "quarantined",
    "purge": "purged",
}
_FROM: Mapping[Move, frozenset[State]] = {
    "assign": frozenset({"open", "assigned", "quarantined"}),
    "replay": frozenset({"open", "assigned", "replayed"}),
    "resolve": frozenset({"open", "assigned", "replayed", "quarantined"}),
    "reopen": frozenset({"assigned", "replayed", "resolved", "quarantined"}),
    "quarantine": frozenset({"open", "assigned", "replayed"}),
    "purge": frozenset({"open", "assigned", "replayed", "resolved", "quarantined"}),
}
_INSTEAD: Mapping[State, str] = {
    "open": "it is open",
    "assigned": "it is assigned",
    "replayed": "it was replayed: reopen it first",
    "resolved": "it is resolved: reopen it first",
    "quarantined": "it is quarantined, as it was replayed too often: reopen it first",
    "purged": "it is purged, and its record is deleted or soon will be: nothing brings it back",
}


class LetterState(NamedTuple):
    """What was done about a letter. `replay` is the last replay's id, and `replays` how many there were.

    `at_ms` is when it was done (epoch ms), 0 where that was not asked for.
    """

    state: State = "open"
    assignee: str = ""
    replay: str = ""
    replays: int = 0
    at_ms: int = 0


OPEN = LetterState()


def refusal(state: State, move: Move) -> str:
    """Say in a clause why a letter in `state` cannot make `move`; empty where it can."""
    if state in _FROM[move]:
        return ""
    return f"it is {state} already" if state == _TO[move] else _INSTEAD[state]


def after(state: State, move: Move) -> State:
    """Tell the state after a move that is not refused. Raises ValueError for one that is."""
    if why := refusal(state, move):
        raise ValueError(f"{move}: {why}")
    return _TO[move]

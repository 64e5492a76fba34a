"""Tests of pipeline/clients/webhook_gate.py: a pure state machine, so driven through made-up time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients import webhook_gate
from pipeline.clients.webhook_gate import (
    BURST_SECONDS,
    HORIZON,
    KEPT_SECONDS,
    PATIENCE,
    PATIENCE_ALONE,
    Gate,
    Limits,
    Stay,
    Ticket,
    Turnstile,
)
from tests.examples import at_most

ONE = Limits(concurrency=1)


def turn_of(got: object) -> float:
    """Take what `Turnstile.enter` said as the time of a turn."""
    assert isinstance(got, float)
    return got


def let_in(got: object) -> int:
    """Take what `Turnstile.enter` said as a number."""
    assert isinstance(got, int)
    return got


@dataclass
class Crowd:
    """Messages that come, come back at their turns, and leave after `seconds` inside; `began` is when each got in."""

    limits: Limits
    seconds: Sequence[float]
    late: float = 0.0
    began: dict[int, float] = field(default_factory=dict)
    most: int = 0
    asked: int = 0

    def run(self, arrivals: Sequence[float], until: float = 1e6) -> Turnstile:
        """Play it through."""
        turnstile, events = Turnstile(self.limits), list[tuple[float, int, int]]()
        for number, at in enumerate(arrivals):
            heappush(events, (at, 1, number))
        while events and events[0][0] <= until:
            now, coming, number = heappop(events)
            if not coming:
                turnstile.leave(number, now)
                continue
            self.asked += 1
            got = turnstile.enter(str(number), now)
            if isinstance(got, int):
                self.began[number] = now
                heappush(events, (now + self.seconds[number % len(self.seconds)], 0, got))
            else:
                assert got is not None
                assert got > now
                assert got <= now + HORIZON * 2
                heappush(events, (got + self.late, 1, number))
            self.most = max(self.most, turnstile.inside)
        return turnstile


def test_no_more_are_inside_than_allowed() -> None:
    """The one too many is told a time, later than now; when one leaves, one may enter."""
    turnstile = Turnstile(Limits(concurrency=2))
    first, _ = turnstile.enter("a", 0.0), turnstile.enter("b", 0.0)
    assert turn_of(turnstile.enter("c", 0.0)) > 0.0
    turnstile.leave(let_in(first), 1.0)
    let_in(turnstile.enter("d", 1.0 + KEPT_SECONDS * 2))


def test_one_that_comes_at_its_turn_passes_newcomers() -> None:
    """The room that it was promised is kept from those who come in between."""
    turnstile = Turnstile(ONE)
    inside = let_in(turnstile.enter("inside", 0.0))
    turn = turn_of(turnstile.enter("booked", 0.0))
    turnstile.leave(inside, turn)
    assert turn_of(turnstile.enter("newcomer", turn)) > turn
    let_in(turnstile.enter("booked", turn + 0.5))


def test_room_is_not_kept_for_ever() -> None:
    """One that never comes back, as its job was cancelled or another worker has it, costs its place a while only."""
    turnstile = Turnstile(ONE)
    inside = let_in(turnstile.enter("inside", 0.0))
    turn = turn_of(turnstile.enter("booked", 0.0))
    turnstile.leave(inside, turn)
    let_in(turnstile.enter("newcomer", turn + KEPT_SECONDS))
    assert turnstile.booked == 0


def test_one_that_comes_too_early_keeps_its_turn() -> None:
    """It is told the same time again, and books no second turn."""
    turnstile = Turnstile(ONE)
    turnstile.enter("inside", 0.0)
    turn = turn_of(turnstile.enter("booked", 0.0))
    assert turnstile.enter("booked", turn / 2) == turn
    assert turnstile.booked == 1


def test_room_that_nobody_claims_is_given_to_whom_comes() -> None:
    """A turn far away keeps nobody out today: not a newcomer, and not its owner."""
    turnstile = Turnstile(ONE)
    inside = let_in(turnstile.enter("inside", 0.0))
    turns = [turn_of(turnstile.enter(str(number), 0.0)) for number in range(100)]
    turnstile.leave(inside, 0.01)
    now = turns[0] / 2
    newcomer = let_in(turnstile.enter("newcomer", now))
    turnstile.leave(newcomer, now)
    let_in(turnstile.enter("99", now))
    assert turnstile.booked == 99


def test_ten_thousand_do_not_come_back_at_once() -> None:
    """Their turns are as far apart as posts end, in the order in which they came."""
    turnstile = Turnstile(Limits(concurrency=4))
    for number in range(4):
        turnstile.enter(f"inside {number}", 0.0)
    turns = [turn_of(turnstile.enter(str(number), 1.2)) for number in range(10_000)]
    # All four are inside for 1.2 seconds so far: a quarter of that is how often one of them is expected to end.
    assert min(later - earlier for earlier, later in pairwise(turns)) > 0.299
    assert turnstile.booked == 10_000


def test_bookings_are_bounded_and_so_are_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a message is told a time and forgotten; beyond the horizon times are spread below it."""
    monkeypatch.setattr(webhook_gate, "BOOKINGS", 100)
    turnstile = Turnstile(Limits(concurrency=1, per_second=0.1))
    let_in(turnstile.enter("inside", 0.0))
    turns = [turn_of(turnstile.enter(str(number), 0.0)) for number in range(1000)]
    assert turnstile.booked == 100
    assert max(turns) <= HORIZON
    late = sorted(turns[500:])
    assert late[0] >= HORIZON / 2
    assert max(later - earlier for earlier, later in pairwise(late)) < HORIZON / 100


def test_turns_taken_back_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that got in before their turn leave nothing behind, however many there are."""
    monkeypatch.setattr(webhook_gate, "BOOKINGS", 10)
    turnstile = Turnstile(ONE)
    inside = let_in(turnstile.enter("inside", 0.0))
    for number in range(1000):
        turn_of(turnstile.enter(str(number), 0.0))
        turnstile.leave(inside, 0.0)
        inside = let_in(turnstile.enter(str(number), 0.0))
    assert turnstile.booked == 0
    assert len(turnstile._queue) <= 21


def test_a_rate_holds_over_any_second() -> None:
    """Where an endpoint names one; those that wait come in their order."""
    crowd = Crowd(Limits(concurrency=100, per_second=10), [0.01])
    crowd.run([number / 1000 for number in range(200)])
    began = [crowd.began[number] for number in range(200)]
    assert began == sorted(began)
    assert max(sum(at <= other < at + 1 for other in began) for at in began) <= 10 * (1 + BURST_SECONDS) + 1
    assert began[-1] == pytest.approx(20, abs=1.5)
    assert crowd.asked <= 2 * 200 + 20


def test_a_stuck_endpoint_is_asked_seldom_and_recovers() -> None:
    """While posts hang for 20 s each, those that wait come back a few times a second in all, and all get in."""
    crowd = Crowd(Limits(concurrency=4), [20.0])
    crowd.run([0.0] * 100)
    assert len(crowd.began) == 100
    assert crowd.most == 4
    assert max(crowd.began.values()) < 1.5 * 20 * 100 / 4
    assert crowd.asked < 4 * max(crowd.began.values())


@settings(max_examples=at_most(40))
@given(
    limits=st.builds(Limits, st.integers(1, 5), st.none() | st.sampled_from([0.5, 3.0, 20.0])),
    arrivals=st.lists(st.floats(0, 20), min_size=1, max_size=60),
    seconds=st.lists(st.floats(0, 5), min_size=1, max_size=5),
    late=st.sampled_from([0.0, 0.001, 0.7, 15.0]),
)
def test_all_get_in_within_the_limits(
    limits: Limits, arrivals: Sequence[float], seconds: Sequence[float], late: float
) -> None:
    """Whoever comes back when told gets in, late or not; never are more inside, nor more begun in a time, than said."""
    crowd = Crowd(limits, seconds, late)
    turnstile = crowd.run(sorted(arrivals))
    assert len(crowd.began) == len(arrivals)
    assert crowd.most <= limits.concurrency
    assert turnstile.inside == turnstile.booked == 0
    if limits.per_second:
        began = sorted(crowd.began.values())
        for first, at in enumerate(began):
            for count, other in enumerate(began[first:], 1):
                assert count <= limits.per_second * (other - at + BURST_SECONDS) + 1 + 1e-6


def ticket(got: Ticket | Stay | float | None) -> Ticket:
    assert isinstance(got, Ticket)
    return got


def stay(got: Ticket | Stay | float) -> Stay:
    assert isinstance(got, Stay)
    return got


def test_who_stays_gets_in_before_newcomers() -> None:
    """It books nothing; when one leaves it claims the room, which is not given to who comes in between."""
    gate = Gate()
    inside = ticket(gate.enter("a", ONE, "inside", 0.0))
    staying = stay(gate.enter("a", ONE, "staying", 0.0, may_stay=True))
    assert gate.claim(staying, "staying", 0.1) is None
    assert gate.again(staying, 0.1) == float("inf")
    gate.leave(inside, 0.2)
    assert isinstance(gate.enter("a", ONE, "newcomer", 0.2), float)
    inside = ticket(gate.claim(staying, "staying", 0.2))
    gate.leave(inside, 0.3)
    ticket(gate.enter("a", ONE, "another", 0.3 + 2 * KEPT_SECONDS))


def test_who_stays_in_vain_books_its_turn() -> None:
    """It was told how long it may stay, which is longer where nobody else is held up."""
    gate = Gate()
    ticket(gate.enter("a", ONE, "inside", 0.0))
    alone = stay(gate.enter("a", ONE, "alone", 0.0, may_stay=True))
    assert alone.end == PATIENCE_ALONE
    ticket(gate.enter("b", ONE, "inside", 0.0))
    beside = stay(gate.enter("a", ONE, "beside", 0.0, may_stay=True))
    assert beside.end == PATIENCE
    gate.give_up(beside)
    gate.give_up(alone)
    assert isinstance(gate.enter("a", ONE, "beside", 1.0), float)


def test_who_stays_for_a_rate_is_told_when_to_claim() -> None:
    """One after the other, as the rate has room for them; none has to leave for that."""
    gate, limits = Gate(), Limits(concurrency=100, per_second=1)
    ticket(gate.enter("a", limits, "inside", 0.0))
    stays = [stay(gate.enter("a", limits, str(number), 0.0, may_stay=True)) for number in range(3)]
    assert [one.turn for one in stays] == pytest.approx([2.0, 3.0, 4.0])
    assert gate.claim(stays[0], "0", 0.5) is None
    ticket(gate.claim(stays[0], "0", 1.0))
    assert gate.claim(stays[1], "1", 1.0) is None
    assert gate.again(stays[1], 1.0) <= 4.0


def test_one_whose_turn_has_come_stays_as_no_newcomer() -> None:
    """Were there no room at its turn, it stays, and what is kept for others does not keep it out."""
    gate = Gate()
    inside = ticket(gate.enter("a", ONE, "inside", 0.0))
    first, _ = gate.enter("a", ONE, "first", 0.0), gate.enter("a", ONE, "second", 0.0)
    assert isinstance(first, float)
    staying = stay(gate.enter("a", ONE, "first", first + 1, may_stay=True))
    gate.leave(inside, first + 1)
    ticket(gate.claim(staying, "first", first + 1))


def test_one_lane_does_not_fill_another() -> None:
    """Each endpoint has its own limits."""
    gate = Gate()
    ticket(gate.enter("slow", ONE, "a", 0.0))
    assert isinstance(gate.enter("slow", ONE, "b", 0.0), float)
    ticket(gate.enter("other", ONE, "b", 0.0))


def test_there_is_a_limit_over_all_but_each_has_its_share() -> None:
    """A lane with many posts in flight leaves others their equal share of what there is in all."""
    gate, many = Gate(in_all=4), Limits(concurrency=100)
    tickets = [ticket(gate.enter("greedy", many, str(number), 0.0)) for number in range(4)]
    assert isinstance(gate.enter("greedy", many, "5", 0.0), float)
    ticket(gate.enter("other", many, "1", 0.0))
    ticket(gate.enter("other", many, "2", 0.0))
    assert isinstance(gate.enter("other", many, "3", 0.0), float)
    for one in tickets:
        gate.leave(one, 0.1)
    ticket(gate.enter("greedy", many, "6", 0.2))


def test_lanes_at_rest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hosts are posted to, only those with posts in flight or turns are remembered."""
    monkeypatch.setattr(webhook_gate, "LANES", 10)
    gate = Gate()
    ticket(gate.enter("busy", ONE, "a", 0.0))
    assert isinstance(gate.enter("busy", ONE, "b", 0.0), float)
    for number in range(1000):
        gate.leave(ticket(gate.enter(f"host {number}", ONE, "a", 0.0)), 0.0)
    assert len(gate._lanes) <= 20
    assert isinstance(gate.enter("busy", ONE, "c", 0.0), float)


def test_a_lane_whose_turns_nobody_took_is_forgotten_too() -> None:
    """After the longest wait that a turn may have."""
    turnstile = Turnstile(ONE)
    inside = let_in(turnstile.enter("inside", 0.0))
    turn_of(turnstile.enter("booked", 0.0))
    assert not turnstile.at_rest(HORIZON)
    turnstile.leave(inside, 1.0)
    assert not turnstile.at_rest(HORIZON / 2)
    assert turnstile.at_rest(HORIZON)

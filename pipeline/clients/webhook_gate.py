"""Who may post now, and whose turn comes when: the limits of each endpoint, so that a slow one delays only itself.

Who finds no room books a turn: a time at which room is to be expected. Turns are spread as the endpoint gets through
its messages, so ten thousand that wait do not come back at once; and room is kept for those whose turn has come, so
newcomers do not pass them. Pure: time is passed in, in seconds of any clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple

IN_ALL = 256
"""The most posts in flight, all endpoints together, as long as each has less than its equal share of them."""
BOOKINGS = 10_000
"""The most turns that an endpoint remembers; who comes then is told a time, but is a newcomer again."""
LANES = 1_000
"""Above so many lanes those at rest are forgotten: a list of hosts may stand for any number of them."""
HORIZON = 3_600.0
"""Seconds: no turn is further away, as nobody knows how fast an endpoint will be by then."""
KEPT_SECONDS = 10.0
"""How long room is kept for one whose turn has come: it may come by a retry topic, or have ended elsewhere."""
PATIENCE = 0.5
"""Seconds: one that finds no room may stay so long before it is sent away. To come back costs more than to post, so a
quick endpoint gets its messages one after the other; but who stays takes a place from those of other endpoints."""
PATIENCE_ALONE = 4.0
"""The same where no other endpoint has been posted to for `ALONE_AFTER` seconds."""
ALONE_AFTER = 10.0
LEAST_WAIT = 0.02
"""Seconds: coming back costs more than to wait so long."""
LONGEST_POST = 2.0
"""Seconds: turns are no further apart than as if a post took so long. A stuck endpoint may recover at any time."""
BURST_SECONDS = 0.1
"""In any `t` seconds at most `per_second * (t + BURST_SECONDS) + 1` posts begin: who is a bit late is not sent away."""

_FIRST_GUESS = 0.01
_STUCK = 1.0  # before, a post without an answer tells of a busy process as likely as of a slow endpoint
_SMOOTHING = 0.1
_EARLY = 0.005
_GOLDEN = 0.618_033_988_749_895


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint bears: so many posts in flight, and where it says so, so many begun in a second."""

    concurrency: int = 16
    per_second: float | None = None


class Ticket(NamedTuple):
    """One post that was let in, to be handed back when it is over."""

    lane: str
    number: int


class Stay(NamedTuple):
    """One that may wait before the gate: `turn` is when to claim if nobody has left, `end` how long it may wait."""

    lane: str
    turn: float
    end: float


class Gate:
    """The turnstiles of all lanes (one for each endpoint and host), and the limit over them all."""

    def __init__(self, in_all: int = IN_ALL) -> None:
        """Let `in_all` in at once."""
        self._in_all = in_all
        self._inside = 0
        self._lanes: dict[str, Turnstile] = {}
        self._many = LANES
        self._lane: str | None = None
        self._changed = -inf

    def enter(
        self, lane: str, limits: Limits, message: str, now: float, *, may_stay: bool = False
    ) -> Ticket | Stay | float:
        """Let a message in, or return when its turn is, which is later than now. The first limits of a lane count.

        One without a turn `may_stay` for a while, which books nothing: then it must `claim` or `give_up`.
        """
        turnstile = self._lanes.get(lane)
        if turnstile is None:
            self._forget(now)
            turnstile = self._lanes[lane] = Turnstile(limits)
        patience = self._patience(lane, now)
        got = turnstile.enter(message, now, room=self._has_room(turnstile), may_stay=may_stay)
        if got is None:
            return Stay(lane, turnstile.again(now), now + patience)
        return got if isinstance(got, float) else self._let_in(lane, got)

    def _patience(self, lane: str, now: float) -> float:
        if lane != self._lane:
            # The first of all has no other before it.
            self._changed = now if self._lane is not None else -inf
            self._lane = lane
        return PATIENCE_ALONE if now - self._changed >= ALONE_AFTER else PATIENCE

    def claim(self, stay: Stay, message: str, now: float) -> Ticket | None:
        """Let in one that has stayed, if there is room."""
        turnstile = self._lanes[stay.lane]
        got = turnstile.claim(message, now) if self._has_room(turnstile) else None
        return None if got is None else self._let_in(stay.lane, got)

    def give_up(self, stay: Stay) -> None:
        """End the wait of one that has stayed in vain."""
        self._lanes[stay.lane].staying -= 1

    def again(self, stay: Stay, now: float) -> float:
        """Say when to claim again where nobody has left meanwhile; for ever where one must leave first."""
        return self._lanes[stay.lane].again(now)

    def _has_room(self, turnstile: Turnstile) -> bool:
        return self._inside < self._in_all or turnstile.inside < max(1, self._in_all // len(self._lanes))

    def _let_in(self, lane: str, number: int) -> Ticket:
        self._inside += 1
        return Ticket(lane, number)

    def leave(self, ticket: Ticket, now: float) -> None:
        """End a post."""
        self._inside -= 1
        self._lanes[ticket.lane].leave(ticket.number, now)

    def _forget(self, now: float) -> None:
        if len(self._lanes) >= self._many:
            self._lanes = {lane: one for lane, one in self._lanes.items() if not one.at_rest(now)}
            self._many = max(LANES, 2 * len(self._lanes))


class Turnstile:
    """One lane: who is inside, who has booked, and how fast it goes."""

    def __init__(self, limits: Limits) -> None:
        """Begin with nobody inside."""
        self._limits = limits
        self._step = 1 / limits.per_second if limits.per_second else 0.0
        self._begun: dict[int, float] = {}  # in the order of time, so the first is the oldest
        self._number = 0
        self._usual = _FIRST_GUESS
        self._free_at = -inf  # when the rate has room again, were there no burst
        self._turns: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []  # of turns to come; some are taken back, which `_turns` knows
        self._due: dict[str, float] = {}  # whose turn has come, for whom room is kept
        self._late: dict[str, None] = {}  # whose turn is over: no room is kept, but they are no newcomers either
        self._last = self._second = -inf  # the last turns given to newcomers, and to those who found no room
        self._spread = 0.0
        self._asked = -inf
        self.staying = 0
        """How many wait before it, without a booking."""

    @property
    def inside(self) -> int:
        """How many posts are in flight."""
        return len(self._begun)

    @property
    def booked(self) -> int:
        """How many turns are remembered."""
        return len(self._turns)

    def at_rest(self, now: float) -> bool:
        """Whether a new one in its place would make no difference, or none that anybody waits for."""
        waiting = (self._turns or self._late) and now < self._asked + HORIZON
        return not self._begun and not self.staying and not waiting and self._free_at <= now

    def enter(self, message: str, now: float, *, room: bool = True, may_stay: bool = False) -> int | float | None:
        """Let a message in and return its number, an int; or return when its turn is, a float later than now.

        Without `room` nobody is let in. None: it `may_stay`, and does.
        """
        self._advance(now)
        returns = self._returns(message)
        if room and self._has_room(now, returns=returns) and (returns or not self.staying):
            return self._let_in(message, now)
        booked = self._turns.get(message)
        if booked is not None and message not in self._due:
            return booked
        if may_stay:
            self.staying += 1
            if self._turns.pop(message, None) is not None:
                del self._due[message]
                self._late[message] = None
            return None
        return self._book(message, now, returns=returns)

    def claim(self, message: str, now: float) -> int | None:
        """Let in one that has stayed; None where there is no room yet."""
        self._advance(now)
        if not self._has_room(now, returns=self._returns(message)):
            return None
        self.staying -= 1
        return self._let_in(message, now)

    def again(self, now: float) -> float:
        """Return when one that stays should claim again, though nobody has left."""
        if not self._step and self.inside >= self._limits.concurrency:
            return inf
        return self._soonest(now)

    def leave(self, number: int, now: float) -> None:
        """End a post, and learn how long it took."""
        took = max(0.0, now - self._begun.pop(number))
        self._usual += _SMOOTHING * (took - self._usual)

    def _has_room(self, now: float, *, returns: bool) -> bool:
        kept = 0 if returns else len(self._due)
        if self.inside + kept >= self._limits.concurrency:
            return False
        if not self._step:
            return True
        # A newcomer must not take what those who have booked count upon.
        burst = BURST_SECONDS if returns or not self._turns else 0.0
        return not kept and self._free_at - burst <= now

    def _returns(self, message: str) -> bool:
        return message in self._due or message in self._late

    def _let_in(self, message: str, now: float) -> int:
        self._turns.pop(message, None)
        self._due.pop(message, None)
        self._late.pop(message, None)
        self._free_at = max(self._free_at, now) + self._step
        self._number += 1
        self._begun[self._number] = now
        return self._number

    def _book(self, message: str, now: float, *, returns: bool) -> float:
        turn = self._next(now, returns=returns)
        self._due.pop(message, None)
        self._late.pop(message, None)
        if returns or len(self._turns) < BOOKINGS:
            self._turns[message] = turn
            heappush(self._queue, (turn, message))
        return turn

    def _next(self, now: float, *, returns: bool) -> float:
        """Give the next turn: to newcomers after all others, to those that found no room at their turn soon."""
        if not self._turns:
            self._last = self._second = -inf
        gap, soonest = self._gap(now), self._soonest(now)
        if returns:
            self._second = max(self._second + gap, soonest)
            self._last = max(self._last + gap, self._second)
            return self._second
        if self._last + gap <= now + HORIZON:
            self._last = max(self._last + gap, soonest)
            return self._last
        # So far away no order is worth keeping: they come in the second half of the time, evenly spread.
        self._spread = (self._spread + _GOLDEN) % 1.0
        return now + HORIZON * (1 + self._spread) / 2

    def _soonest(self, now: float) -> float:
        """Return when one more may expect to get in, after those that stay."""
        gap = self._gap(now)
        return max(now + max(gap, LEAST_WAIT), self._free_at if self._step else now) + gap * self.staying

    def _gap(self, now: float) -> float:
        """Return the seconds from one turn to the next: how often a post ends, as far as one can tell."""
        age = now - next(iter(self._begun.values()), now)
        post = min(max(self._usual, age if age > _STUCK else 0.0), LONGEST_POST)
        return max(post / self._limits.concurrency, self._step)

    def _advance(self, now: float) -> None:
        """Keep room for those whose turn has come, and no longer for those who did not come."""
        self._asked = now
        while self._queue and self._queue[0][0] <= now + _EARLY:
            turn, message = heappop(self._queue)
            if self._turns.get(message) == turn:
                self._due[message] = turn
        while self._due:
            message, turn = next(iter(self._due.items()))
            if turn + KEPT_SECONDS > now:
                break
            del self._due[message], self._turns[message]
            self._late[message] = None
        while len(self._late) > BOOKINGS:
            del self._late[next(iter(self._late))]
        if len(self._queue) > 2 * BOOKINGS:
            self._queue = [(turn, one) for one, turn in self._turns.items() if one not in self._due]
            heapify(self._queue)

"""The nemesis' plan: what is done to whom, and when. Pure: the seed decides all of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Action = Literal["start", "kill", "leave", "stop", "continue", "kill broker", "stop broker"]
"""`kill` is SIGKILL, `leave` SIGTERM, `stop` and `continue` SIGSTOP and SIGCONT."""

Kind = Literal["kill", "leave", "join", "short stop", "long stop", "kill broker", "stop broker", "kill all"]

FIRST: Sequence[Sequence[Kind]] = (("kill", "long stop", "kill broker"), ("short stop", "leave", "join"))
"""Every run has each of these, if its time allows: first three in any order, then the others."""
WEIGHTS: dict[Kind, float] = {
    "kill": 5,
    "leave": 4,
    "join": 4,
    "short stop": 4,
    "long stop": 2,
    "kill broker": 1,
    "stop broker": 1,
    "kill all": 1,
}
LEAST, MOST = 2, 4
"""How many workers there are, at least and at most."""
SESSION_SECONDS = 10.0
LONG = 1.5
BLOWS, CALM_SECONDS = 6, 12.0
"""After so many actions all is left alone for so long: without, nothing would go on between two sessions that end."""
BROKER_SECONDS = 15.0
"""How long the broker is left alone after it was killed or stopped."""


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One action, `at` seconds after the beginning. `worker` is empty where it is about the broker.

    A worker is known by its name, and a name is used once. `seconds` is for how long a broker is stopped.
    """

    at: float
    action: Action
    worker: str = ""
    seconds: float = 0.0


def schedule(seed: int, seconds: float, first: int) -> list[Step]:
    """Plan `seconds` of trouble for `first` workers, called w1, w2, ..., that run already."""
    return sorted(_Planner(random.Random(seed), seconds, first).steps())


class _Planner:
    """Knows which workers run at each moment of the plan, and chooses what happens next."""

    def __init__(self, chance: random.Random, seconds: float, first: int) -> None:
        self._chance = chance
        self._seconds = seconds
        self._names = (f"w{number}" for number in range(first + 1, 1_000_000))
        self._running = [f"w{number}" for number in range(1, first + 1)]
        self._stopped: dict[str, float] = {}
        self._broker_free = 0.0
        self._wanted = [kind for kinds in FIRST for kind in chance.sample(kinds, len(kinds))]

    def steps(self) -> Iterator[Step]:
        at, number = self._chance.uniform(1.0, 3.0), 0
        while at < self._seconds:
            self._running += [name for name, until in self._stopped.items() if until <= at]
            self._stopped = {name: until for name, until in self._stopped.items() if until > at}
            yield from self._act(self._choose(at), at)
            number += 1
            at += self._chance.uniform(0.5, 4.5) + (0.0 if number % BLOWS else CALM_SECONDS)

    def _choose(self, at: float) -> Kind:
        alive = len(self._running) + len(self._stopped)
        if alive < LEAST or not self._running:
            return "join"
        possible = [kind for kind in WEIGHTS if self._possible(kind, at, alive)]
        for kind in self._wanted:
            if kind in possible:
                self._wanted.remove(kind)
                return kind
        return self._chance.choices(possible, [WEIGHTS[kind] for kind in possible])[0]

    def _possible(self, kind: Kind, at: float, alive: int) -> bool:
        if kind == "join":
            return alive < MOST
        if "stop" in kind and "broker" not in kind:
            enough = len(self._running) > 1
            return enough and (kind == "short stop" or at + LONG * SESSION_SECONDS < self._seconds)
        return "broker" not in kind or at >= self._broker_free

    def _act(self, kind: Kind, at: float) -> Iterator[Step]:
        match kind:
            case "join":
                yield self._join(at)
            case "kill" | "leave":
                yield Step(at, kind, self._pick())
            case "short stop":
                yield from self._stop(at, self._chance.uniform(0.5, 0.6 * SESSION_SECONDS))
            case "long stop":
                yield from self._stop(at, self._chance.uniform(1.2, LONG) * SESSION_SECONDS)
            case "kill all":
                yield from (Step(at, "kill", self._pick()) for _ in list(self._running))
                yield self._join(at)
            case "kill broker" | "stop broker":
                self._broker_free = at + BROKER_SECONDS
                yield Step(at, kind, seconds=self._chance.uniform(1.0, 6.0))

    def _join(self, at: float) -> Step:
        name = next(self._names)
        self._running.append(name)
        return Step(at, "start", name)

    def _stop(self, at: float, seconds: float) -> Iterator[Step]:
        name = self._pick()
        self._stopped[name] = at + seconds
        yield Step(at, "stop", name)
        yield Step(at + seconds, "continue", name)

    def _pick(self) -> str:
        name = self._chance.choice(self._running)
        self._running.remove(name)
        return name

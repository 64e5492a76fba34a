"""What goes wrong, and when: a plan drawn from a seed. Pure values, so that a plan can be cut down and run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from pipeline.core.stage import Stage
from pipeline.devkit.crash import variants
from pipeline.devkit.crash.variants import Variant

Outage = Literal["model", "index", "webhooks"]
Command = Literal["pause", "cancel", "grow"]
Kind = Literal["kill", "stall", "stop", "join", "slow", "away", "untold", "late", "transaction", "bug", Outage, Command]

Flaw = Literal["abort", "unheard", "unheard abort"]
"""What befalls a transaction at its commit: the cluster aborts it; or the answer is lost, of a commit or an abort."""

COMMANDS: frozenset[Kind] = frozenset(get_args(Command))
"""What people do, to all processes."""

PARTITIONS = 2
"""How many partitions topics have at first."""

SESSION = 10.0
"""Seconds after which the group of a silent member gives its partitions to others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, from `at` on, for `seconds`; `steps` is how many steps its process still makes.

    `target` is the number of a process; outages of the outside have none. `flavour` says how an outage shows itself,
    which stage has a bug, and what is paused. `count` is the request that is cancelled, or to how many topics grow.
    """

    kind: Kind
    at: float
    seconds: float
    target: int = 0
    steps: int = 0
    flavour: str = ""
    count: int = 0

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.at:7.2f} s  {_WORDS[self.kind].format(fault=self)}"


_WORDS: Mapping[Kind, str] = {
    "kill": "process {fault.target} is killed {fault.steps} steps later, and started again after {fault.seconds:.1f} s",
    "stall": "process {fault.target} stands still {fault.steps} steps later, for {fault.seconds:.1f} s",
    "stop": "process {fault.target} is asked to stop, and started again after {fault.seconds:.1f} s",
    "join": "process {fault.target} (another one) joins, for {fault.seconds:.1f} s",
    "slow": "the event loop of process {fault.target} is slow for {fault.seconds:.1f} s",
    "away": "the broker is out of reach of process {fault.target} for {fault.seconds:.1f} s",
    "untold": "an acknowledgement to process {fault.target} is lost: the record is written, an error is reported",
    "late": "acknowledgements reach process {fault.target} only after {fault.seconds:.1f} s",
    "model": "the model fails ({fault.flavour}) for {fault.seconds:.1f} s",
    "index": "the index is down for {fault.seconds:.1f} s",
    "webhooks": "the receiver of webhooks fails ({fault.flavour}) for {fault.seconds:.1f} s",
    "transaction": "the next transaction of process {fault.target} fails ({fault.flavour})",
    "bug": "the handler of {fault.flavour} fails for {fault.seconds:.1f} s",
    "pause": "{fault.flavour} is paused, and resumed after {fault.seconds:.1f} s",
    "cancel": "the job of request {fault.count} is cancelled",
    "grow": "topics grow to {fault.count} partitions{fault.flavour}",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: which stages each process runs, what goes wrong, and until when. Processes that join come last.

    `variants` say which stages are declared otherwise.
    """

    seed: int
    processes: tuple[tuple[str, ...], ...]
    faults: tuple[Fault, ...]
    until: float
    variants: tuple[Variant, ...] = ()


def draw(seed: int, declared: Sequence[Stage]) -> Plan:
    """Draw a plan: two or three processes that share the stages, and some faults and commands in a minute or two."""
    stages = [stage.name for stage in declared]
    chance = Random(f"{seed}/faults")  # noqa: S311  # reproducible on purpose
    processes = _spread(chance, stages, chance.choice((2, 2, 3)))
    until = chance.choice((20.0, 40.0, 60.0, 90.0))
    faults: list[Fault] = []
    for _ in range(chance.randint(1, 10)):
        fault = _draw(chance, until, len(processes))
        if fault.kind == "join":
            processes.append(tuple(one for one in stages if chance.random() < 0.6) or tuple(stages))
        faults.append(fault)
    more = Random(f"{seed}/more")  # noqa: S311  # as above
    ways = variants.draw(more, declared)
    faults += _more(more, until, len(processes), stages, ways)
    return Plan(seed, tuple(processes), tuple(sorted(faults, key=lambda fault: fault.at)), until, ways)


def _more(
    chance: Random, until: float, processes: int, stages: Sequence[str], ways: Sequence[Variant]
) -> Iterator[Fault]:
    """Draw what befalls transactions, where there are any; bugs that show at times; and what people do."""
    if any(one.way == "exactly once" for one in ways):
        for _ in range(chance.randint(0, 4)):
            flaw = chance.choice(get_args(Flaw))
            yield Fault("transaction", _early(chance, until), 0.0, chance.randrange(processes), flavour=flaw)
    if chance.random() < 0.3:
        yield Fault("bug", _early(chance, until), chance.uniform(0.5, 10.0), flavour=chance.choice(stages))
    if chance.random() < 0.3:
        scopes = (*(f"stage {stage}" for stage in stages), "type answer", "tenant default", "model m", "everything")
        yield Fault("pause", _early(chance, until), chance.choice((2.0, 20.0, 60.0)), flavour=chance.choice(scopes))
    if chance.random() < 0.4:
        yield Fault("cancel", _early(chance, until), 0.0, count=chance.randrange(6))
    if chance.random() < 0.15:
        by_hand = " by hand, the first one of the chain first"
        flavour, count = chance.choice(("", by_hand)), PARTITIONS + chance.randint(1, 2)
        yield Fault("grow", _early(chance, until), 0.0, flavour=flavour, count=count)


def _early(chance: Random, until: float) -> float:
    return chance.random() ** 2 * until


def _spread(chance: Random, stages: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Give each stage to at least one process; rather to two, or nothing could be taken over."""
    shares: list[list[str]] = [[] for _ in range(count)]
    for stage in stages:
        surely = chance.randrange(count)
        for number, share in enumerate(shares):
            if number == surely or chance.random() < 0.6:
                share.append(stage)
    return [tuple(share) for share in shares if share]


def _draw(chance: Random, until: float, processes: int) -> Fault:
    kind, make = chance.choices(_MAKERS, _WEIGHTS)[0]
    at, target = chance.uniform(0.0, until), chance.randrange(processes)
    # Half of all faults fall where the first records are on their way.
    at = at * 0.1 if chance.random() < 0.5 else at
    if kind == "join":
        return Fault(kind, at, chance.uniform(1.0, until), processes)
    return make(chance, kind, at, target)


def _of_process(chance: Random, kind: Kind, at: float, target: int) -> Fault:
    return Fault(kind, at, chance.choice((0.5, 3.0, 12.0, 25.0)) * chance.random(), target, _steps(chance))


def _stall(chance: Random, kind: Kind, at: float, target: int) -> Fault:
    # Mostly longer than the session: then others have taken over when the zombie wakes.
    return Fault(kind, at, chance.choice((2.0, 1.5, 3.0)) * SESSION * chance.random(), target, _steps(chance))


def _outage(chance: Random, kind: Kind, at: float, _target: int) -> Fault:
    flavour = chance.choice(("429", "500", "timeout")) if kind != "index" else ""
    return Fault(kind, at, chance.uniform(0.5, 15.0), flavour=flavour)


def _steps(chance: Random) -> int:
    return int(chance.random() ** 2 * 200)


_Make = Callable[[Random, Kind, float, int], Fault]
_MAKERS: Sequence[tuple[Kind, _Make]] = (
    ("kill", _of_process),
    ("stall", _stall),
    ("stop", _of_process),
    ("join", _of_process),
    ("slow", _of_process),
    ("away", _of_process),
    ("untold", _of_process),
    ("late", _of_process),
    ("model", _outage),
    ("index", _outage),
    ("webhooks", _outage),
)
_WEIGHTS = (5, 5, 2, 2, 1, 2, 1, 2, 2, 1, 1)

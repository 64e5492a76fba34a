"""What a benchmark finds: figures against goals, as a table and as `.bench/results.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One goal and what was measured: the median of all rounds, with the lowest and the highest of them.

    `unit` is "x" for a ratio of two variants, "share" for a part of what is possible, and else what is counted, such as
    "s" for absolute seconds.
    """

    id: str
    what: str
    value: float
    low: float
    high: float
    goal: float
    met: bool
    unit: str


def at_least(name: str, what: str, goal: float, rounds: Sequence[float], unit: str = "x") -> Figure:
    """Make the figure of a goal that the median must reach."""
    return _figure(name, f"{what}, at least {goal:g}", goal, rounds, unit, met=median(rounds) >= goal)


def at_most(name: str, what: str, goal: float, rounds: Sequence[float], unit: str) -> Figure:
    """Make the figure of a goal that the median must not pass."""
    return _figure(name, f"{what}, at most {goal:g}", goal, rounds, unit, met=median(rounds) <= goal)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide two variants round by round: only what ran at nearly the same time can be compared."""
    return [one / other for one, other in zip(above, below, strict=True)]


def table(figures: Sequence[Figure]) -> str:
    """Write figures for people, one a line."""
    head = f"{'id':<19} {'median':>8} {'low':>8} {'high':>8} {'goal':>6} {'unit':<6} {'met':<4} what"
    return "\n".join([head, *map(_line, figures)])


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write figures for programs: a JSON list, which replaces that of an earlier run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n", encoding="utf-8")


def _line(one: Figure) -> str:
    measured = " ".join(f"{number:>8.3f}" if abs(number) < 1000 else f"{number:>8,.0f}" for number in _values(one))
    return f"{one.id:<19} {measured} {one.goal:>6g} {one.unit:<6} {'yes' if one.met else 'NO':<4} {one.what}"


def _values(one: Figure) -> tuple[float, float, float]:
    return one.value, one.low, one.high


def _figure(name: str, what: str, goal: float, rounds: Sequence[float], unit: str, *, met: bool) -> Figure:
    return Figure(name, what, round(median(rounds), 4), round(min(rounds), 4), round(max(rounds), 4), goal, met, unit)

"""Other ways in which the same stages may be declared: each seed plays some of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage

Way = Literal["exactly once", "at most once", "unordered", "in place"]

_WAYS: Mapping[Way, dict[str, Any]] = {
    "exactly once": {"delivery": "exactly once"},
    "at most once": {"delivery": "at most once"},
    "unordered": {"order": "none"},
    "in place": {"retry": RetryPolicy((2.0, 7.0), in_place=True)},
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One stage that is declared in another way."""

    stage: str
    way: Way

    def __str__(self) -> str:
        """Say it in words."""
        return f"           {self.stage} is declared {_WORDS[self.way]}"


_WORDS: Mapping[Way, str] = {
    "exactly once": "exactly once",
    "at most once": "at most once",
    "unordered": "without an order",
    "in place": "with retries in place",
}


def varied(stages: Sequence[Stage], variants: Sequence[Variant]) -> list[Stage]:
    """Declare `stages` as `variants` say. Raises ValueError where a stage cannot be declared so."""
    known = {stage.name: stage for stage in stages}
    for one in variants:
        stage = replace(known[one.stage], **_WAYS[one.way])
        # The tiers stay what the topics were made for, whatever policy is played.
        known[one.stage] = replace(stage, retry=replace(stage.retry, tiers=known[one.stage].retry.tiers))
    return list(known.values())


def draw(chance: Random, stages: Sequence[Stage]) -> tuple[Variant, ...]:
    """Draw up to three variants that fit together; none in a quarter of all cases."""
    drawn: list[Variant] = []
    for _ in range(chance.randint(0, 3)):
        stage, way = chance.choice(stages), chance.choices(tuple(_WAYS), (4, 2, 1, 2))[0]
        one = Variant(stage.name, way)
        if _fits(stages, [*drawn, one]):
            drawn.append(one)
    return tuple(drawn)


def _fits(stages: Sequence[Stage], variants: Sequence[Variant]) -> bool:
    deliveries = [one.stage for one in variants if "delivery" in _WAYS[one.way]]
    if len(deliveries) != len(set(deliveries)):
        return False
    try:
        made = varied(stages, variants)
    except ValueError:
        return False
    # What has no output has its effect where nobody can see whether it is there twice, or not at all.
    return all(stage.output is not None for stage in made if stage.delivery != "at least once")

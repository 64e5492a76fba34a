"""A stage bound to names: which topics it reads, what stands on them, and where its copies go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core import names
from pipeline.core.job import Lane
from pipeline.core.payloads import Payload
from pipeline.core.retry import Tier
from pipeline.core.stage import Stage, Topic

WEIGHTS: Mapping[Lane | None, int] = {"interactive": 8, "standard": 4, "batch": 1, None: 4}
"""Shares of the slots when several feeds have work; a feed without work gives its share to the others."""


@dataclass(frozen=True, slots=True)
class Source:
    """One topic a stage reads. `weight` is its share against the stage's other feeds."""

    topic: str
    declared: Topic[Any]
    weight: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a stage that is names: built once, from its declaration and the prefix.

    `foreign` are those of its sources that are not ours: others name, make and fill them.
    """

    stage: Stage
    prefix: str
    group: str
    sources: Mapping[str, Source]
    tiers: Mapping[str, Tier]
    dead_letters: str
    failures: str
    foreign: frozenset[str] = frozenset()

    @property
    def topics(self) -> list[str]:
        """All topics the stage's consumer subscribes to."""
        return [*self.sources, *self.tiers]

    @property
    def outputs(self) -> list[str]:
        """All topics that outputs go to."""
        return [names.topic(self.prefix, one.noun, lane) for one in self.stage.outputs for lane in one.lanes]

    @property
    def written(self) -> list[str]:
        """All topics the stage writes to, whichever of its tiers it reads itself."""
        return [
            *self.outputs,
            *(self.retry_topic(tier) for tier in self.stage.retry.tiers),
            self.dead_letters,
            self.failures,
        ]

    def declared(self, topic: str, original: str) -> Topic[Any]:
        """Tell what a record is: by its topic, or on a tier by the topic it first stood on."""
        source = self.sources.get(topic) or self.sources.get(original)
        return source.declared if source else next(iter(self.sources.values())).declared

    def retry_topic(self, tier: Tier) -> str:
        """Name the topic of one of the stage's tiers."""
        return names.retry_topic(self.prefix, self.stage.name, tier)

    def output(self, payload: Payload) -> Topic[Any]:
        """Tell where an output goes: its type picks the topic."""
        for one in self.stage.outputs:
            if isinstance(payload, one.payload):
                return one
        raise LookupError(f"stage {self.stage.name} has no output topic for {type(payload).__name__}")

    def output_topic(self, lane: Lane | None, declared: Topic[Any] | None = None) -> str:
        """Name the topic that outputs of a job in `lane` go to: `declared`, or the stage's first."""
        declared = declared or self.stage.output
        if declared is None:
            raise LookupError(f"stage {self.stage.name} has no output topic, but its handler returned a payload")
        return names.topic(self.prefix, declared.noun, (lane or "standard") if declared.laned else None)


def plan(stage: Stage, prefix: str, foreign: Iterable[str] = ()) -> Plan:
    """Bind `stage` to the topics of `prefix`, and to `foreign` ones, which carry what its open source carries.

    Raises ValueError for a stage that cannot read foreign topics, ConfigurationError for a name that none can have.
    """
    others = dict.fromkeys(names.check_foreign(prefix, topic) for topic in foreign)
    if others:
        _check_foreign(stage)
    return Plan(
        stage=stage,
        prefix=prefix,
        group=names.group(prefix, stage.name),
        sources={source.topic: source for source in (*_sources(stage, prefix), *_foreign(stage, others))},
        tiers={names.retry_topic(prefix, stage.name, tier): tier for tier in stage.retry.tiers},
        dead_letters=names.dead_letter_topic(prefix, stage.name),
        failures=names.topic(prefix, "failures"),
        foreign=frozenset(others),
    )


def _check_foreign(stage: Stage) -> None:
    if len(stage.sources) != 1 or not stage.open_topic or not stage.repartition:
        # Copies keep their partition's number without repartition, and foreign topics have as many as they like.
        raise ValueError(
            f"stage {stage.name} cannot read foreign topics: it needs one source, an open topic, and repartition=True"
        )


def _foreign(stage: Stage, topics: Iterable[str]) -> Iterator[Source]:
    for topic in topics:
        yield Source(topic, stage.sources[0], WEIGHTS[None])


def _sources(stage: Stage, prefix: str) -> Iterator[Source]:
    for declared in stage.sources:
        for lane in declared.lanes:
            yield Source(names.topic(prefix, declared.noun, lane), declared, WEIGHTS[lane])

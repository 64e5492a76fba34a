"""Who reads what: the topics of a set of stages, so that a record can be judged by where it stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core import names
from pipeline.core.retry import Tier
from pipeline.core.stage import Stage, Topic


@dataclass(frozen=True, slots=True)
class Read:
    """One topic as a stage reads it; `tier` where it is one of its retry tiers."""

    stage: Stage
    tier: Tier | None


@dataclass(frozen=True, slots=True)
class Map:
    """The topics of `stages` under `prefix`. `read` is by topic; `dead` are the dead-letter topics."""

    prefix: str
    stages: Mapping[str, Stage]
    read: Mapping[str, Read]
    dead: frozenset[str]

    @property
    def copies(self) -> frozenset[str]:
        """All topics that hold copies, byte for byte."""
        return self.dead | {topic for topic, read in self.read.items() if read.tier}

    def topics(self, stage: str) -> list[str]:
        """The topics that a stage reads."""
        return [topic for topic, read in self.read.items() if read.stage.name == stage]

    def outputs(self, stage: str) -> list[str]:
        """The topics that a stage writes its outputs to."""
        return [name for output in self.stages[stage].outputs for name in _spelt(self.prefix, output)]

    def name(self, noun: str) -> str:
        """The name of a topic without lanes."""
        return names.topic(self.prefix, noun)


def chart(stages: Iterable[Stage], prefix: str) -> Map:
    """Draw the map of `stages`."""
    known = {stage.name: stage for stage in stages}
    read: dict[str, Read] = {}
    for stage in known.values():
        for source in stage.sources:
            read.update((topic, Read(stage, None)) for topic in _spelt(prefix, source))
        read.update((names.retry_topic(prefix, stage.name, tier), Read(stage, tier)) for tier in stage.retry.tiers)
    dead = frozenset(names.dead_letter_topic(prefix, name) for name in known)
    return Map(prefix, known, read, dead)


def _spelt(prefix: str, topic: Topic[Any]) -> Sequence[str]:
    return [names.topic(prefix, topic.noun, lane) for lane in topic.lanes]

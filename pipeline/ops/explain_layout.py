"""What each topic of a pipeline is to the story of a job: what it carries, who writes it, and who reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core import names
from pipeline.core.payloads import Delivery, Document, Failure, Payload
from pipeline.core.retry import Tier
from pipeline.core.stage import Stage, Topic

Kind = Literal["request", "document", "output", "failure", "delivery", "retry", "dead letter", "foreign"]
"""What a record is to its job. Whatever else outsiders write to an open topic of ours is a request."""

FAILURES = Topic("failures", Failure)
PEOPLES = ("control", "letters", "audit")
"""The nouns of the topics in which people's words and deeds stand."""
COPIES = frozenset({"retry", "dead letter"})


@dataclass(frozen=True, slots=True)
class Place:
    """One topic. `stage` is whose a copy is; `readers` and `writers` name stages, none where outsiders write."""

    topic: str
    kind: Kind
    declared: Topic[Any]
    stage: str = ""
    tier: Tier | None = None
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()

    @property
    def copies(self) -> bool:
        """Whether it holds copies: retries, or dead letters."""
        return self.kind in COPIES


@dataclass(frozen=True, slots=True)
class Layout:
    """All topics of a pipeline that can tell of jobs, by name, and its stages."""

    prefix: str
    places: Mapping[str, Place]
    stages: Mapping[str, Stage]

    @property
    def people(self) -> dict[str, str]:
        """The topics of what people said and did, with the noun of each."""
        return {names.topic(self.prefix, noun): noun for noun in PEOPLES}

    def short(self, topic: str) -> str:
        """Name a topic without the prefix that all share."""
        return topic.removeprefix(f"{self.prefix}.")

    def declared(self, place: Place, original: str) -> Topic[Any] | None:
        """Tell what a record carries: by its topic, a copy by the topic where it first stood; None where others know.

        A stage that reads topics of others alone knows how to read a copy of what stood on one.
        """
        if place.kind == "foreign":
            return None
        if not place.copies:
            return place.declared
        first = self.places.get(original)
        if first is not None and first.kind == "foreign":
            return None
        return first.declared if first is not None and not first.copies else place.declared

    def writer(self, place: Place, source: str) -> str:
        """Tell which stage wrote what stands at `place`, made of what stood on the topic `source`; empty where unknown.

        Where several stages write to a topic, it is the one of them that reads the source.
        """
        if len(place.writers) == 1:
            return place.writers[0]
        readers = self.places[source].readers if source in self.places else ()
        known = [name for name in place.writers if name in readers]
        return known[0] if len(known) == 1 else ""

    def inputs(self, stage: str) -> list[str]:
        """Name the topics that a stage's group reads: its sources and tiers."""
        return [place.topic for place in self.places.values() if stage in place.readers]


def layout(prefix: str, stages: Iterable[Stage], foreign: Mapping[str, Collection[str]] | None = None) -> Layout:
    """Lay out the pipeline of `stages`; `foreign` names, by stage, the topics of others that it reads."""
    known = tuple(stages)
    places = [*_streams(prefix, known), *_foreign(known, foreign or {})]
    for stage in known:
        places += _copies(prefix, stage)
    return Layout(prefix, {place.topic: place for place in places}, {stage.name: stage for stage in known})


def _streams(prefix: str, stages: Collection[Stage]) -> Iterator[Place]:
    sources = [source for stage in stages for source in stage.sources]
    outputs = [output for stage in stages for output in stage.outputs]
    for declared in {topic.noun: topic for topic in (*sources, *outputs, FAILURES)}.values():
        readers = tuple(stage.name for stage in stages if declared.noun in _nouns(stage.sources))
        writers = tuple(stage.name for stage in stages if declared.noun in _nouns(stage.outputs))
        writers = tuple(stage.name for stage in stages) if declared.noun == FAILURES.noun else writers
        for lane in declared.lanes:
            topic = names.topic(prefix, declared.noun, lane)
            yield Place(topic, _kind(declared), declared, readers=readers, writers=writers)


def _kind(declared: Topic[Any]) -> Kind:
    payload: type[Payload] = declared.payload
    if issubclass(payload, Failure):
        return "failure"
    if issubclass(payload, Delivery):
        return "delivery"
    if issubclass(payload, Document):
        return "document"
    return "request" if declared.open_topic else "output"


def _nouns(topics: Iterable[Topic[Any]]) -> set[str]:
    return {topic.noun for topic in topics}


def _foreign(stages: Collection[Stage], foreign: Mapping[str, Collection[str]]) -> Iterator[Place]:
    for stage in stages:
        for topic in foreign.get(stage.name, ()):
            yield Place(topic, "foreign", stage.sources[0], readers=(stage.name,))


def _copies(prefix: str, stage: Stage) -> Iterator[Place]:
    own = (stage.name,)
    for tier in stage.retry.tiers:
        topic = names.retry_topic(prefix, stage.name, tier)
        yield Place(topic, "retry", stage.sources[0], stage.name, tier, readers=own, writers=own)
    dead = names.dead_letter_topic(prefix, stage.name)
    yield Place(dead, "dead letter", stage.sources[0], stage.name, writers=own)

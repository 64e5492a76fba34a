"""The topology and the schemas speak of the same nouns."""

from __future__ import annotations

from pipeline.core.payloads import Payload
from pipeline.topology import TOPICS
from tests.schemas.examples import NOUNS, SCHEMAS


def test_every_topic_has_a_schema_and_every_schema_a_topic() -> None:
    """The nouns under `schemas/` are those of the topology, with the same payloads."""
    declared: dict[str, type[Payload]] = {topic.noun: topic.payload for topic in TOPICS}
    assert declared == NOUNS
    assert sorted(declared) == list(SCHEMAS.nouns)

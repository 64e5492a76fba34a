"""All names that others see: topics, groups, subjects. Total functions, in this one file."""

from __future__ import annotations

import re

from pipeline.core.errors import ConfigurationError
from pipeline.core.job import Lane
from pipeline.core.retry import Tier

MAX_TOPIC = 249
"""Kafka's limit for a topic's name."""


def check_prefix(prefix: str) -> str:
    """Return a prefix that is fit for use. Raises ConfigurationError naming the variable otherwise."""
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,100}", prefix):
        raise ConfigurationError(
            f"PIPELINE_TOPIC_PREFIX is {prefix!r}: use 1 to 100 letters, digits, '-' or '_' (no dot, so that ACLs "
            "and several pipelines can share a cluster)"
        )
    return prefix


def check_foreign(prefix: str, topic: str) -> str:
    """Return the name of a foreign topic that is fit for use. Raises ConfigurationError otherwise."""
    if not re.fullmatch(rf"[a-zA-Z0-9._-]{{1,{MAX_TOPIC}}}", topic) or topic in {".", ".."}:
        raise ConfigurationError(
            f"PIPELINE_TABLES names the topic {topic!r}, and Kafka has none that is called so: use 1 to {MAX_TOPIC} "
            "letters, digits, '.', '-' or '_'"
        )
    if topic.startswith(f"{prefix}."):
        raise ConfigurationError(
            f"PIPELINE_TABLES names the topic {topic}, but what begins with {prefix}. is the pipeline's own: give the "
            "connector another topic.prefix, or set another PIPELINE_TOPIC_PREFIX"
        )
    return topic


def topic(prefix: str, noun: str, lane: Lane | None = None) -> str:
    """Name the topic of `noun`, or its topic for one lane."""
    return f"{prefix}.{noun}.{lane}" if lane else f"{prefix}.{noun}"


def retry_topic(prefix: str, stage: str, tier: Tier) -> str:
    """Name a stage's retry topic: it belongs to the stage, so that a retry never re-fires a sibling."""
    return f"{prefix}.{stage}.retry.{tier.name}"


def dead_letter_topic(prefix: str, stage: str) -> str:
    """Name a stage's dead-letter topic."""
    return f"{prefix}.{stage}.dlq"


def group(prefix: str, stage: str) -> str:
    """Name a stage's consumer group."""
    return f"{prefix}.{stage}"


def transactional_id(prefix: str, stage: str, process: str) -> str:
    """Name a stage's transactions in one process; `process` is unique to it."""
    return f"{prefix}.{stage}.{process}"


def subject(prefix: str, noun: str) -> str:
    """Name the schema registry's subject of `noun`."""
    return f"{prefix}.{noun}-value"

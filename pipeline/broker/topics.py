"""Topics as values: what is wanted of one, and what there is of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MAX_MESSAGE_BYTES = "max.message.bytes"

Creation = Literal["created", "present"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be created. `config`: topic properties (`retention.ms`, ...). Replication is the cluster's default."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is. `config` has every property in force, defaults included; empty where a broker does not tell."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)

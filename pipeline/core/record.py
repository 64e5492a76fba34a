"""A record: bytes as Kafka has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.quick import quick

Header = tuple[str, bytes | None]
"""One Kafka header. Headers are an ordered multimap with nullable values; duplicates are legal."""

Headers = tuple[Header, ...]


class Partition(NamedTuple):
    """The name of one partition: topic and number."""

    topic: str
    number: int


class Position(NamedTuple):
    """Where a record stands in the log. `str()` is `topic/partition/offset`, as the `pipeline-source` header has it."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Spell the position as headers and logs do."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Commit(NamedTuple):
    """What a group keeps of a partition: the next `offset` to read, and up to 4,095 ASCII characters beside it."""

    offset: int
    metadata: str = ""


@quick
@dataclass(frozen=True, slots=True)
class Record:
    """A consumed record. `timestamp_ms` is the broker's view of it, -1 where it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = -1

    @property
    def position(self) -> Position:
        """Where this record stands in the log."""
        return Position(self.topic, self.partition, self.offset)


@quick
@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be produced. `partition` None leaves the choice to the key (murmur2, as Java clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None

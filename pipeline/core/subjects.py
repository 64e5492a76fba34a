"""What a person asks a schema registry about: subjects, their versions and their compatibility level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.errors import PipelineError

FULL_TRANSITIVE = "FULL_TRANSITIVE"
"""The level at which every version of a subject can read all others: old records stay, and old services run on."""


@dataclass(frozen=True, slots=True)
class OwnSchema:
    """A version of a schema that is ours. `form` is its CRC-64-AVRO fingerprint, `file` its name for people."""

    subject: str
    number: int
    file: str
    text: str
    form: bytes


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a subject in a registry, and the id that records name it by.

    `form` is its CRC-64-AVRO fingerprint, None for what is no record schema; `name` is for people.
    """

    version: int
    id: int
    form: bytes | None
    name: str


class Incompatible(PipelineError):
    """A registry refuses a schema beside the versions that it has. Says it in its words, and in ours on each field."""


class Subjects(Protocol):
    """A registry, as a person asks it. All raise ConfigurationError where it is away or does not permit it."""

    async def level(self, subject: str) -> str:
        """The compatibility level that counts for a subject: its own, or that of all."""
        ...

    async def set_level(self, subject: str, level: str) -> None:
        """Set a subject's own compatibility level. There need be no version of it yet."""
        ...

    async def versions(self, subject: str) -> Sequence[Registered]:
        """All versions of a subject, oldest first; none for an unknown one."""
        ...

    async def find(self, schema: OwnSchema) -> Registered | None:
        """The version that this schema is, whatever its white space and docs."""
        ...

    async def register(self, schema: OwnSchema) -> int:
        """Register a schema under its subject; returns its id. Raises Incompatible."""
        ...

"""The schemas of a directory: `<noun>/v1.avsc`, `v2.avsc`, ... Every released version stays, to read old records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ConfigurationError
from pipeline.wire.avro import AvroSchema, parse
from pipeline.wire.bounds import SchemaError

GOLDEN = "golden"
"""The directory beside the nouns that holds an old event of every version."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a noun's schema, and the file it is in."""

    noun: str
    number: int
    path: Path
    schema: AvroSchema


class Schemas:
    """All versions of all nouns. Immutable, parsed once."""

    def __init__(self, versions: Mapping[str, tuple[Version, ...]], directory: Path) -> None:
        """Use `versions` by noun, oldest first. Raises ConfigurationError where two nouns cannot be told apart."""
        self._versions = versions
        self._directory = directory
        self._newest = {noun: all_of[-1] for noun, all_of in versions.items()}
        self._fingerprints: dict[bytes, Version] = {}
        self._names: dict[str, str] = {}
        for noun, all_of in versions.items():
            for version in all_of:
                self._add(noun, version)

    def _add(self, noun: str, version: Version) -> None:
        schema = version.schema
        taken = self._names.setdefault(schema.name, noun)
        if taken != noun:
            raise ConfigurationError(
                f"{version.path} describes the record {schema.name}, which is that of {taken}: give it its own name"
            )
        self._fingerprints[schema.fingerprint] = version

    @property
    def nouns(self) -> tuple[str, ...]:
        """All nouns, in alphabetical order."""
        return tuple(self._versions)

    def versions(self, noun: str) -> tuple[Version, ...]:
        """All versions of `noun`, oldest first. Raises ConfigurationError for an unknown noun."""
        self.newest(noun)
        return self._versions[noun]

    def newest(self, noun: str) -> Version:
        """The version that records of `noun` are written with and read as. Raises ConfigurationError."""
        try:
            return self._newest[noun]
        except KeyError:
            raise ConfigurationError(f"{self._directory} has no schema for {noun}: add {noun}/v1.avsc") from None

    def by_fingerprint(self, fingerprint: bytes) -> Version | None:
        """The version with this CRC-64-AVRO fingerprint (8 bytes, little-endian), of any noun."""
        return self._fingerprints.get(fingerprint)

    def noun_of(self, name: str) -> str | None:
        """The noun whose records have this full name."""
        return self._names.get(name)


def load_schemas(directory: Path) -> Schemas:
    """Load every version of every noun. Raises ConfigurationError, which names the file and the cure."""
    try:
        folders = sorted(path for path in directory.iterdir() if path.is_dir() and path.name != GOLDEN)
    except OSError as error:
        raise ConfigurationError(f"cannot read the schemas in {directory}: {error.strerror}") from error
    return Schemas({folder.name: _load_noun(folder) for folder in folders}, directory)


def _load_noun(folder: Path) -> tuple[Version, ...]:
    numbered = {_number(path): path for path in folder.glob("*.avsc")}
    if sorted(numbered) != list(range(1, len(numbered) + 1)) or not numbered:
        found = ", ".join(f"v{number}" for number in sorted(numbered)) or "none"
        raise ConfigurationError(f"{folder} must hold v1.avsc, v2.avsc and so on without a gap, and has {found}")
    return tuple(_load(folder.name, number, numbered[number]) for number in sorted(numbered))


def _number(path: Path) -> int:
    match = re.fullmatch(r"v([1-9]\d{0,4})\.avsc", path.name)
    if match is None:
        raise ConfigurationError(f"{path}: name it v<number>.avsc")
    return int(match[1])


def _load(noun: str, number: int, path: Path) -> Version:
    try:
        return Version(noun, number, path, parse(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    except SchemaError as error:
        raise ConfigurationError(f"{path} {error}") from error

"""Whether every version of a schema can read every other one: FULL_TRANSITIVE, as schema registries call it.

Old records stay in topics and dead letters, and old services run beside new ones, so both directions count. Apache
Avro's own checker judges types. It does not look at logical types, whose change keeps the bytes and alters their sense.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import avro.schema
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
    lookup_writer_field,
)

from pipeline.core.errors import ConfigurationError
from pipeline.core.retry import describe
from pipeline.wire.schemas import Version, load_schemas

_CURE = "Leave the field as it was and add a new one, with a default, beside it."


def check_schemas(directory: Path) -> list[str]:
    """Check all versions of all nouns in `directory`. Returns a sentence for each problem: file, fault and cure."""
    try:
        schemas = load_schemas(directory)
    except ConfigurationError as error:
        return [f"{error}."]
    return [problem for noun in schemas.nouns for problem in faults(schemas.versions(noun))]


def faults(versions: tuple[Version, ...]) -> list[str]:
    """Check all versions of one noun, oldest first. Returns a sentence for each problem: file, fault and cure."""
    return list(_check_noun(versions))


def _check_noun(versions: tuple[Version, ...]) -> Iterator[str]:
    parsed = {}
    for version in versions:
        try:
            parsed[version] = _parse(version)
        except Exception as error:
            yield f"{version.path} is not strict Avro: {describe(error, 300)}. Mend the file."
    for older, newer in combinations(parsed, 2):
        if older.schema.name != newer.schema.name:
            yield f"{newer.path} is named {newer.schema.name}. Name it {older.schema.name}, as {older.path.name} is."
            continue
        yield from _cannot_read(newer, older, parsed)
        yield from _cannot_read(older, newer, parsed)
        yield from _other_meaning(older, newer)


def _parse(version: Version) -> avro.schema.RecordSchema:
    return cast(avro.schema.RecordSchema, avro.schema.parse(version.schema.text))  # nothing else was loaded


def _cannot_read(reader: Version, writer: Version, parsed: Mapping[Version, avro.schema.RecordSchema]) -> Iterator[str]:
    """Say field by field what `reader` cannot make of the records of `writer`."""
    for field in parsed[reader].fields:
        source = lookup_writer_field(parsed[writer], field)
        where = f"{reader.path} cannot read records of {writer.path.name}: field {field.name}"
        if source is not None:
            checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # avro's own
            result = checker.get_compatibility(field.type, source.type)
            if result.compatibility is not SchemaCompatibilityType.compatible:
                yield f"{where} has another type there ({_faults(result)}). {_CURE}"
        elif not field.has_default and reader.number > writer.number:
            yield f"{where} is new and has no default. Give it one; if it was renamed, add its old name as an alias."
        elif not field.has_default:
            yield f"{where} is needed and is gone there. Put it back into {writer.path.name}."


def _faults(result: SchemaCompatibilityResult) -> str:
    kinds = sorted({kind.value.replace("_", " ") for kind in result.incompatibilities})
    return "; ".join([*kinds, *sorted(result.messages)])


def _other_meaning(older: Version, newer: Version) -> Iterator[str]:
    before, after = (dict(_meanings(json.loads(version.schema.text), "")) for version in (older, newer))
    for place, meaning in before.items():
        if place in after and after[place] != meaning:
            path, _, kind = place.rpartition(":")
            change = f"from {meaning or 'a plain ' + kind} to {after[place] or 'a plain ' + kind}"
            yield f"{newer.path}: field {path[1:]} changes its logical type since {older.path.name}, {change}. {_CURE}"


def _meanings(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each place of a schema, with its type, and the logical type there (empty for none)."""
    if isinstance(node, list):
        for branch in node:
            yield from _meanings(branch, path)
    elif not isinstance(node, dict):
        yield f"{path}:{node}", ""
    else:
        details = [
            str(node[key]) for key in ("logicalType", "precision", "scale") if "logicalType" in node and key in node
        ]
        yield f"{path}:{node['type']}", " ".join(details)
        for field in node.get("fields", ()):
            yield from _meanings(field["type"], f"{path}.{field['name']}")
        for inner in ("items", "values"):
            if inner in node:
                yield from _meanings(node[inner], f"{path}.{inner}")

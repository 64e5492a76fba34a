"""The check that every version of a schema reads every other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.wire.compat import check_schemas

LONG: dict[str, Any] = {"name": "a", "type": "long"}
OPTIONAL: dict[str, Any] = {"name": "b", "type": ["null", "string"], "default": None}
ENUM = {"type": "enum", "name": "E", "symbols": ["X", "Y"]}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def decimal(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}


def inner(*fields: dict[str, Any]) -> dict[str, Any]:
    """A field that holds an array of records."""
    return {"name": "list", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [*fields]}}}


Fields = list[dict[str, Any]]


def problems(folder: Path, *versions: Fields, name: str = "R") -> list[str]:
    """What the check says of these versions, given by their fields; paths are cut down to the file."""
    for number, fields in enumerate(versions, 1):
        path = folder / "results" / f"v{number}.avsc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"type": "record", "name": name, "fields": fields}))
    return [problem.replace(f"{folder}/results/", "") for problem in check_schemas(folder)]


CURE = "Leave the field as it was and add a new one, with a default, beside it."


def new(field: str) -> str:
    cure = "Give it one; if it was renamed, add its old name as an alias."
    return f"v2.avsc cannot read records of v1.avsc: field {field} is new and has no default. {cure}"


def gone(field: str) -> str:
    cure = "Put it back into v2.avsc."
    return f"v1.avsc cannot read records of v2.avsc: field {field} is needed and is gone there. {cure}"


def other(reader: int, field: str, faults: str) -> str:
    where = f"v{reader}.avsc cannot read records of v{3 - reader}.avsc: field {field}"
    return f"{where} has another type there ({faults}). {CURE}"


def mismatch(reader: str, writer: str) -> str:
    return f"type mismatch; reader type: {reader} not compatible with writer type: {writer}"


def meaning(field: str, change: str) -> str:
    return f"v2.avsc: field {field} changes its logical type since v1.avsc, {change}. {CURE}"


BREAKING: dict[str, tuple[Fields, Fields, list[str]]] = {
    "a required field removed": ([LONG, OPTIONAL], [OPTIONAL], [gone("a")]),
    "a field added without a default": ([LONG], [LONG, {"name": "c", "type": "long"}], [new("c")]),
    "a field renamed without an alias": ([LONG], [{"name": "c", "type": "long"}], [new("c"), gone("a")]),
    "a type changed": (
        [LONG],
        [{"name": "a", "type": "string"}],
        [other(2, "a", mismatch("string", "long")), other(1, "a", mismatch("long", "string"))],
    ),
    "a type widened": ([{"name": "a", "type": "int"}], [LONG], [other(1, "a", mismatch("int", "long"))]),
    "a field made nullable": (
        [LONG],
        [{"name": "a", "type": ["null", "long"]}],
        [other(1, "a", mismatch("long", "null"))],
    ),
    "a symbol added": (
        [{"name": "e", "type": ENUM}],
        [{"name": "e", "type": ENUM | {"symbols": ["X", "Y", "Z"]}}],
        [other(1, "e", "missing enum symbols; {'Z'}")],
    ),
    "a symbol removed": (
        [{"name": "e", "type": ENUM}],
        [{"name": "e", "type": ENUM | {"symbols": ["X"]}}],
        [other(2, "e", "missing enum symbols; {'Y'}")],
    ),
    "a logical type changed": (
        [{"name": "at", "type": MILLIS}],
        [{"name": "at", "type": MICROS}],
        [meaning("at", "from timestamp-millis to timestamp-micros")],
    ),
    "a logical type put on": (
        [{"name": "at", "type": ["null", "long"]}],
        [{"name": "at", "type": ["null", MILLIS]}],
        [meaning("at", "from a plain long to timestamp-millis")],
    ),
    "a logical type taken off": (
        [{"name": "at", "type": MILLIS}],
        [{"name": "at", "type": "long"}],
        [meaning("at", "from timestamp-millis to a plain long")],
    ),
    "a decimal's scale changed, in a nested record": (
        [inner({"name": "price", "type": {"type": "map", "values": decimal(2)}})],
        [inner({"name": "price", "type": {"type": "map", "values": decimal(3)}})],
        [meaning("list.items.price.values", "from decimal 9 2 to decimal 9 3")],
    ),
    "a nested field added without a default": (
        [inner(LONG)],
        [inner(LONG, {"name": "c", "type": "long"})],
        [other(2, "list", "reader field missing default value; c")],
    ),
}


@pytest.mark.parametrize("case", BREAKING)
def test_a_breaking_change_is_found(tmp_path: Path, case: str) -> None:
    """Each sentence names the file, the field, what is wrong, and the cure."""
    before, after, expected = BREAKING[case]
    assert problems(tmp_path, before, after) == expected


HARMLESS: dict[str, tuple[Fields, Fields]] = {
    "nothing": ([LONG], [LONG]),
    "a field with a default added": ([LONG], [LONG, OPTIONAL]),
    "a field with a default removed": ([LONG, OPTIONAL], [LONG]),
    "another order": ([LONG, OPTIONAL], [OPTIONAL, LONG]),
    "docs": ([LONG], [LONG | {"doc": "New words."}]),
    "a nested field with a default added": ([inner(LONG)], [inner(LONG, OPTIONAL)]),
    "a field with a default renamed, with an alias": ([OPTIONAL], [OPTIONAL | {"name": "c", "aliases": ["b"]}]),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_harmless_change_is_allowed(tmp_path: Path, case: str) -> None:
    """What both sides can read is no problem."""
    assert problems(tmp_path, *HARMLESS[case]) == []


def test_every_version_is_checked_against_every_other(tmp_path: Path) -> None:
    """A field that leaves and comes back as something else breaks the versions that are not neighbours."""
    third = [LONG, {"name": "b", "type": ["null", "long"], "default": None}]
    found = problems(tmp_path, [LONG, OPTIONAL], [LONG], third)
    assert [problem.split(":")[0] for problem in found] == [
        "v3.avsc cannot read records of v1.avsc",
        "v1.avsc cannot read records of v3.avsc",
    ]


def test_a_record_may_not_be_renamed(tmp_path: Path) -> None:
    """The name tells the noun of a record, so all versions have one name."""
    problems(tmp_path, [LONG], name="Old")
    path = tmp_path / "results" / "v2.avsc"
    path.write_text(json.dumps({"type": "record", "name": "New", "fields": [LONG]}))
    assert check_schemas(tmp_path) == [f"{path} is named New. Name it Old, as v1.avsc is."]


def test_a_schema_that_apache_avro_refuses_is_a_problem(tmp_path: Path) -> None:
    """fastavro is lenient where others are not: two fields of one name."""
    [problem] = problems(tmp_path, [LONG, LONG])
    assert problem.startswith("v1.avsc is not strict Avro: ")


def test_a_directory_that_does_not_load_is_a_problem(tmp_path: Path) -> None:
    """The check reports what is wrong with files in the same way."""
    [problem] = problems(tmp_path, [{"name": "a", "type": "strange"}])
    assert problem.startswith("v1.avsc is not an Avro schema: ")

"""What schemas are admitted, and that decoding with an admitted one cannot take long."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import avro
from pipeline.wire.bounds import MAX_DEPTH, MAX_NESTING, SchemaError, largest


def record(field: object, name: str = "R") -> dict[str, Any]:
    """A record of one field, `f`."""
    return {"type": "record", "name": name, "fields": [{"name": "f", "type": field}]}


def nested(levels: int, inner: object = "long") -> object:
    """Arrays in arrays."""
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return inner


def chain(length: int) -> dict[str, Any]:
    """Records that hold each other by name: shallow as JSON, deep as types."""
    fields: list[dict[str, Any]] = [{"name": "f0", "type": record("long", "R0")}]
    fields += [{"name": f"f{n}", "type": record(f"R{n - 1}", f"R{n}")} for n in range(1, length)]
    return {"type": "record", "name": "R", "fields": fields}


def parsed(schema: object) -> avro.AvroSchema:
    return avro.parse(json.dumps(schema))


REFUSED: dict[str, tuple[object, str]] = {
    "array of nulls": (record({"type": "array", "items": "null"}), "null outside of a union"),
    "map of nulls": (record({"type": "map", "values": "null"}), "null outside of a union"),
    "a null field": (record("null"), "null outside of a union"),
    "empty record": (record({"type": "record", "name": "E", "fields": []}), "takes no byte"),
    "empty fixed": (record({"type": "fixed", "name": "F", "size": 0}), "takes no byte"),
    "negative fixed": (record({"type": "fixed", "name": "F", "size": -5}), "takes no byte"),
    "fixed of no number": (record({"type": "fixed", "name": "F", "size": "8"}), "takes no byte"),
    "empty enum": (record({"type": "enum", "name": "E", "symbols": []}), "takes no byte"),
    "empty union": (record([]), "takes no byte"),
    "protocol type": (record({"type": "error_union", "name": "X"}), "Avro"),
    "itself": (record(["null", "R"]), "the type R inside itself"),
    "itself, deeper": (record({"type": "array", "items": {"type": "map", "values": "R"}}), "the type R inside itself"),
    "too deep": (record(nested(MAX_DEPTH)), "more than 32 deep"),
    "too deep by names": (chain(MAX_DEPTH), "more than 32 deep"),
    "deep JSON": (record(nested(MAX_NESTING)), "nests deeper"),
    "deep default": (record("long") | {"doc": nested(MAX_NESTING)}, "nests deeper"),
    "no record": ("long", "not the schema of a record"),
    "an enum": ({"type": "enum", "name": "E", "symbols": ["A"]}, "not the schema of a record"),
    "unknown type": (record("strange"), "not an Avro schema"),
    "a number": (7, "not an Avro schema"),
    "nothing": (None, "not an Avro schema"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_schema_without_bounds_is_refused(case: str) -> None:
    """No value may take zero bytes or nest without end, whoever wrote the schema."""
    schema, reason = REFUSED[case]
    with pytest.raises(SchemaError, match=reason):
        parsed(schema)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"' + "x" * avro.MAX_SCHEMA_CHARACTERS + '"'])
def test_text_that_is_no_schema_is_refused(text: str) -> None:
    """Broken, endless and huge JSON is a SchemaError like all others: it ends neither the process nor its patience."""
    with pytest.raises(SchemaError):
        avro.parse(text)


def test_ordinary_schemas_are_admitted() -> None:
    """Unions with null, collections, enums, fixed, named types used twice, and types as deep as the limit."""
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": ["null", "string"]}]}
    fields = [
        {"name": "a", "type": {"type": "array", "items": inner}},
        {"name": "b", "type": ["null", "Inner"]},
        {"name": "c", "type": {"type": "map", "values": ["null", {"type": "enum", "name": "E", "symbols": ["A"]}]}},
        {"name": "d", "type": {"type": "fixed", "name": "F", "size": 16}},
        {"name": "e", "type": ["null"]},
        {"name": "g", "type": {"type": "string", "avro.java.string": "String"}},
    ]
    assert parsed({"type": "record", "name": "R", "namespace": "n", "fields": fields}).name == "n.R"
    assert parsed(record(nested(MAX_DEPTH - 2))).name == "R"


# ------------------------------------------------------------------ the work of decoding


class CountingStream(BytesIO):
    """Counts its reads: the work that decoding did."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count it."""
        CountingStream.reads += 1
        return super().read(size)


def work(monkeypatch: pytest.MonkeyPatch, schema: object, value: bytes) -> int:
    """How many reads it takes to decode `value`, whatever comes of it."""
    writer = parsed(schema)
    with monkeypatch.context() as patch:
        patch.setattr(avro, "BytesIO", CountingStream)
        CountingStream.reads = 0
        with suppress(Exception):
            avro.read(value, 0, writer, writer)
    return CountingStream.reads


LEAVES = st.sampled_from(["boolean", "int", "long", "float", "double", "bytes", "string"])
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda values: {"type": "map", "values": values}),
        inner.filter(lambda one: not isinstance(one, list)).map(lambda one: ["null", one]),
    ),
    max_leaves=6,
)
HUGE = (b"\x80\x80\x80\x40", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01", b"\x7f")
BYTES = st.lists(st.one_of(st.binary(max_size=8), st.sampled_from(HUGE)), max_size=8).map(b"".join)


@given(field=TYPES, value=BYTES)
def test_decoding_reads_no_more_than_there_are_bytes(field: object, value: bytes) -> None:
    """Under any admitted schema, any bytes are decoded or refused within two reads a byte: lengths and contents."""
    with pytest.MonkeyPatch.context() as patch:
        assert work(patch, record(field), value) <= 2 * len(value) + 2


@pytest.mark.parametrize("items", ["long", "string", ["null", "string"], {"type": "map", "values": "bytes"}])
def test_a_bomb_of_a_few_bytes_does_no_harm(monkeypatch: pytest.MonkeyPatch, items: object) -> None:
    """Eight bytes that claim 2^26, or 2^63, items are refused as soon as the bytes run out."""
    for claim in (b"\x80\x80\x80\x40" + b"\x00" * 4, b"\xff" * 9 + b"\x01"):
        assert work(monkeypatch, record({"type": "array", "items": items}), claim) <= 2 * len(claim) + 2


@pytest.mark.parametrize(
    "value, items", [({}, 0), ({"a": 1}, 1), ({"a": [1, 2, 3]}, 3), ({"a": [{"b": (1, 2, 3)}]}, 3)]
)
def test_the_largest_collection_is_found_wherever_it_is(value: dict[str, Any], items: int) -> None:
    """Arrays and maps count, in records and in each other."""
    assert largest(value) == items

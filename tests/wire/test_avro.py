"""Reading and writing single records, without frames."""

from __future__ import annotations

import json
import math
from typing import Any

import avro.schema
import pytest

from pipeline.core.limits import MAX_COLLECTION_ITEMS, MAX_RECORD_BYTES
from pipeline.wire.avro import AvroSchema, TooLarge, explain, parse, read, write

COLOURS = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}


def schema(*fields: tuple[str, object], **more: object) -> AvroSchema:
    """A record schema of these fields."""
    listed = [{"name": name, "type": type_, **more} for name, type_ in fields]
    return parse(json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": listed}))


def reason(writer: AvroSchema, value: bytes, reader: AvroSchema | None = None) -> str:
    """Why `value` cannot be read."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any error may come of bytes; what counts is its explanation
        read(value, 0, writer, reader or writer)
    assert isinstance(caught.value, Exception)
    return explain(caught.value)


NULLABLE = schema(("f", ["null", "string"]))
ENUM = schema(("f", COLOURS))
TEXT = schema(("f", "string"))

BAD: dict[str, tuple[AvroSchema, bytes, str]] = {
    "nothing": (TEXT, b"", "it ends before"),
    "cut": (TEXT, b"\x06ab", "it ends before"),
    "cut number": (schema(("f", "long")), b"\x80", "it ends within a number"),
    "negative length": (TEXT, b"\x01abc", "it ends before"),
    "endless length": (TEXT, b"\xff" * 9 + b"\x01abc", "it ends before"),
    "left over": (TEXT, b"\x02a\x00\x00", "2 bytes are left over"),
    "not UTF-8": (TEXT, b"\x02\xff", "not UTF-8"),
    "union index too large": (NULLABLE, b"\x04", "a union branch that"),
    "union index far too large": (NULLABLE, b"\xfe\xff\x03", "union branch"),
    "symbol far too large": (ENUM, b"\xfe\xff\x03", "enum symbol"),
}


@pytest.mark.parametrize("case", BAD)
def test_bytes_that_are_no_record_are_explained(case: str) -> None:
    """Each kind of damage has its own clause, which shows nothing of the value."""
    writer, value, expected = BAD[case]
    assert expected in reason(writer, value)


@pytest.mark.parametrize("index", [*range(-8, 0), *range(2, 64)])
def test_no_wrong_union_index_is_taken_for_a_branch(index: int) -> None:
    """Also negative ones, which fastavro would count from the end; in fields that are read and that are skipped."""
    zigzag = bytes([2 * index if index >= 0 else -2 * index - 1])
    both = schema(("f", ["null", "string"]), ("g", "string"))
    only = schema(("g", "string"))
    value = zigzag + b"\x02a\x02b"
    assert "union branch" in reason(both, value)
    assert "union branch" in reason(both, value, only)


@pytest.mark.parametrize("index", [-1, -2, -8, 2, 9])
def test_a_wrong_enum_index_yields_no_symbol(index: int) -> None:
    """What it yields is no text at all, so no payload can take it for one."""
    zigzag = bytes([2 * index if index >= 0 else -2 * index - 1])
    assert not isinstance(read(zigzag, 0, ENUM, ENUM)["f"], str)


def test_a_record_reads_as_it_was_written() -> None:
    """All kinds of values survive, non-finite numbers too: the payload models judge those."""
    every = schema(
        ("a", "boolean"), ("b", "long"), ("c", "double"), ("d", "bytes"), ("e", ["null", "string"]), ("f", COLOURS),
        ("g", {"type": "array", "items": "long"}), ("h", {"type": "map", "values": "string"}),
    )  # fmt: skip  # a line of eight fields reads better than eight lines
    record = {"a": True, "b": -(2**63), "c": math.inf, "d": b"\0", "e": None, "f": "BLUE", "g": [1, 2], "h": {"": "x"}}
    value = write(b"head", every, record)
    assert read(value, 4, every, every) == record


def test_logical_types_are_ignored() -> None:
    """A number means what the payload model says, whatever a writer's schema calls it; no huge decimals are built."""
    logical = schema(
        ("at", {"type": "long", "logicalType": "timestamp-millis"}),
        ("price", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
        ("id", ["null", {"type": "string", "logicalType": "uuid"}]),
        ("span", {"type": "fixed", "size": 12, "name": "Span", "logicalType": "duration"}),
        ("twice", "Span"),
    )
    value = b"\xf6\x01" + b"\x02\x05" + b"\x00" + b"d" * 12 + b"e" * 12
    assert read(value, 0, logical, logical) == {
        "at": 123, "price": b"\x05", "id": None, "span": b"d" * 12, "twice": b"e" * 12
    }  # fmt: skip  # one record


def test_a_record_of_another_version_is_resolved() -> None:
    """Fields that the reader lacks are skipped, fields that the writer lacks take their default, aliases work."""
    old = schema(("gone", {"type": "array", "items": "string"}), ("colour", COLOURS))
    new = parse(
        json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": [
            {"name": "added", "type": ["null", "long"], "default": None},
            {"name": "hue", "type": COLOURS, "aliases": ["colour"]},
        ]})
    )  # fmt: skip  # one schema
    value = write(b"", old, {"gone": ["a", "b"], "colour": "RED"})
    assert read(value, 0, old, new) == {"added": None, "hue": "RED"}


def test_a_record_that_cannot_be_resolved_is_explained() -> None:
    """A reader that needs what no writer wrote says that the schemas do not go together."""
    assert "cannot be resolved" in reason(TEXT, b"\x02a", schema(("g", "long")))


def test_an_unforeseen_error_is_explained_by_its_type_alone() -> None:
    """What a library says may quote the value, so it is not repeated."""
    assert explain(ValueError("the secret")) == "reading it raised ValueError"


@pytest.mark.parametrize("items", [MAX_COLLECTION_ITEMS, MAX_COLLECTION_ITEMS + 1])
def test_arrays_and_maps_are_bounded_when_read_and_when_written(items: int) -> None:
    """The limit itself is allowed; what may not be read is not written either."""
    many = schema(("f", {"type": "map", "values": "string"}))
    record: dict[str, Any] = {"f": {str(number): "" for number in range(items)}}
    bare = b"".join(bytes([2 * len(key)]) + key.encode() + b"\0" for key in record["f"])
    value = _count(items) + bare + b"\0"
    if items <= MAX_COLLECTION_ITEMS:
        assert write(b"", many, record) == value
        assert read(value, 0, many, many) == record
    else:
        assert f"has {items} items" in reason(many, value)
        with pytest.raises(ValueError, match=f"has {items} items"):
            write(b"", many, record)


def _count(items: int) -> bytes:
    return bytes([(items << 1) & 0x7F | 0x80, (items << 1) >> 7 & 0x7F | 0x80, (items << 1) >> 14])


def test_a_value_too_large_to_be_read_is_not_written() -> None:
    """The limit counts all bytes, the frame too; one byte less is written."""
    room = MAX_RECORD_BYTES - 4 - 3
    assert len(write(b"head", TEXT, {"f": "x" * room})) == MAX_RECORD_BYTES
    with pytest.raises(TooLarge, match="1048577 bytes"):
        write(b"head", TEXT, {"f": "x" * (room + 1)})


@pytest.mark.parametrize("record", [{}, {"f": "a", "g": 1}, {"f": 5}, {"f": None}, {"f": "\ud800"}])
def test_a_record_that_does_not_fit_is_not_written(record: dict[str, Any]) -> None:
    """Missing, extra and mistyped fields are errors: nothing is filled in and nothing vanishes."""
    with pytest.raises((ValueError, TypeError)):
        write(b"", TEXT, record)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "record", "name": "R", "fields": [{"name": "f", "type": "long"}]}',
        '{"name": "R", "doc": "!", "type": "record", "fields": [{"type": {"type": "long"}, "name": "f"}]}',
        '{"type": "record", "name": "a.b.R", "fields": [{"name": "f", "type": ["null", "string"], "default": null}]}',
    ],
)
def test_the_fingerprint_is_that_of_apache_avro(text: str) -> None:
    """CRC-64-AVRO of the parsing canonical form, little-endian: independent of order, docs and defaults."""
    assert parse(text).fingerprint == avro.schema.parse(text).fingerprint("CRC-64-AVRO")

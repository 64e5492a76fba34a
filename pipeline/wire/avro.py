"""Avro's binary encoding, bounded and strict; fastavro does the work. Avro 1.12 specification, "Binary encoding"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import fingerprint, to_parsing_canonical_form

from pipeline.core.limits import MAX_COLLECTION_ITEMS, MAX_RECORD_BYTES
from pipeline.core.retry import describe
from pipeline.wire.bounds import SchemaError, check_nesting, check_types, guard, largest

MAX_SCHEMA_CHARACTERS = 262_144
"""The longest schema that is parsed."""

_CLAUSES: tuple[tuple[type[Exception], str], ...] = (
    (EOFError, "it ends before the record does"),
    (KeyError, "it names a union branch that its schema does not have"),
    (IndexError, "it ends within a number, or names a union branch or enum symbol that its schema does not have"),
    (UnicodeDecodeError, "a text in it is not UTF-8"),
    (SchemaResolutionError, "the schema it was written with cannot be resolved to the newest one"),
)
"""What fastavro's errors mean."""


class Malformed(ValueError):
    """Bytes that no record of the schema has, or a record outside our bounds. The message is about "it"."""


class TooLarge(Malformed):
    """More bytes than are decoded."""


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """A record schema, parsed once. `fingerprint` is its CRC-64-AVRO in 8 bytes, little-endian.

    `reading` and `writing` are fastavro's forms; the first is guarded (see `bounds`) and good for reading only.
    """

    name: str
    fingerprint: bytes
    text: str = field(repr=False)
    reading: Any = field(repr=False, compare=False)
    writing: Any = field(repr=False, compare=False)


def parse(text: str) -> AvroSchema:
    """Parse the JSON of a record schema. Raises SchemaError for what is no Avro or would make decoding unbounded."""
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise SchemaError(f"is longer than {MAX_SCHEMA_CHARACTERS} characters")
    try:
        schema = json.loads(text)
        check_nesting(schema)
        writing, reading = parse_schema(schema), parse_schema(schema)
        if not isinstance(reading, dict) or reading["type"] != "record":
            raise SchemaError("is not the schema of a record")
        check_types(reading)
        crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        return AvroSchema(reading["name"], crc, text, guard(reading), writing)
    except SchemaError:
        raise
    except Exception as error:
        raise SchemaError(f"is not an Avro schema: {describe(error, 200)}") from error


def read(value: bytes, start: int, writer: AvroSchema, reader: AvroSchema) -> dict[str, Any]:
    """Read the record that fills `value` from `start` on, resolved from the `writer` schema to the `reader`.

    Raises anything: fastavro has no list of its errors. `explain` says what they mean.
    """
    stream = BytesIO(value)
    stream.seek(start)
    same = writer.fingerprint == reader.fingerprint
    record: Any = schemaless_reader(stream, writer.reading, None if same else reader.reading)
    if left := len(value) - stream.tell():
        raise Malformed(f"{left} bytes are left over after the record")
    _check_items(value, record)
    return record  # type: ignore[no-any-return]  # `parse` admits records only


def write(head: bytes, schema: AvroSchema, record: Mapping[str, Any]) -> bytes:
    """Write `head` and the record, which must have exactly the schema's fields. Raises anything, as `read` does.

    What it returns can be read again: it is within the bounds of reading.
    """
    stream = BytesIO()
    stream.write(head)
    schemaless_writer(stream, schema.writing, record, strict=True, disable_tuple_notation=True)
    value = stream.getvalue()
    check_size(value)
    _check_items(value, record)
    return value


def check_size(value: bytes) -> None:
    """Raises TooLarge for more bytes than are decoded."""
    if len(value) > MAX_RECORD_BYTES:
        raise TooLarge(f"it has {len(value)} bytes, more than the {MAX_RECORD_BYTES} that are decoded")


def explain(error: Exception) -> str:
    """Say in a clause what is wrong with a value that could not be read. Shows nothing of the value."""
    if isinstance(error, Malformed):
        return str(error)
    clauses = (clause for kind, clause in _CLAUSES if isinstance(error, kind))
    return next(clauses, f"reading it raised {type(error).__name__}")


def _check_items(value: bytes, record: Mapping[str, Any]) -> None:
    # Every item takes a byte at least, so that most records need not be searched.
    if len(value) > MAX_COLLECTION_ITEMS and (items := largest(record)) > MAX_COLLECTION_ITEMS:
        raise Malformed(f"an array or map in it has {items} items, more than the {MAX_COLLECTION_ITEMS} allowed")

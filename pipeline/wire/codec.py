"""Bytes to payloads and back, in both framings that Avro records on Kafka come in.

Single-object encoding (Avro 1.12 specification): C3 01, the schema's CRC-64-AVRO fingerprint in 8 bytes little-endian,
the record. Confluent's wire format: 00, the schema's id in a registry in 4 bytes big-endian, the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from pipeline.core.errors import Reject
from pipeline.core.payloads import Payload
from pipeline.wire.avro import AvroSchema, Malformed, TooLarge, check_size, explain, read, write
from pipeline.wire.registered import CONFLUENT, CONFLUENT_HEAD, Registered, SchemaRegistry, Unwritten
from pipeline.wire.schemas import Schemas, Version

P = TypeVar("P", bound=Payload)

SINGLE_OBJECT = b"\xc3\x01"
_SINGLE_OBJECT_HEAD = 10


class AvroCodec:
    """The Codec of `core.ports`. Reads both framings; writes Confluent's with a registry, else single-object encoding.

    Every schema is looked up and parsed once: with a warm cache nothing here waits.
    """

    def __init__(self, schemas: Schemas, registry: SchemaRegistry | None = None) -> None:
        """Use `schemas` to write with and to read as; a registry tells what the ids in records mean."""
        self._schemas = schemas
        self._registry = registry
        self._heads: dict[str, bytes] = {}
        self._registered = Registered(registry)

    async def prepare(self, nouns: Iterable[str]) -> None:
        """Look up what `nouns` are written with, so that no write of these depends on the registry from here on.

        For start-up: a paid answer must not meet a registry that is away. Raises Defer where it is, or where it lacks
        a schema, and ConfigurationError for a noun without a schema.
        """
        for noun in nouns:
            await self._head(self._schemas.newest(noun))

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        """Decode `value` as a record of `noun`. Raises Reject (with a reason for people) or Defer (registry down)."""
        newest = self._schemas.newest(noun)
        if value[:2] == SINGLE_OBJECT:
            return self._read(newest, payload, value, _SINGLE_OBJECT_HEAD, self._by_fingerprint(noun, value))
        if value[:1] != CONFLUENT:
            raise _undecodable(noun, _unframed(value))
        writer = await self._by_id(noun, value)
        try:
            return self._read(newest, payload, value, CONFLUENT_HEAD, writer)
        except Reject:
            # Its writer may have asked a registry that gives ids anew since it was wiped.
            await self._registered.check()
            raise

    def _read(self, newest: Version, payload: type[P], value: bytes, start: int, writer: AvroSchema) -> P:
        noun = newest.noun
        if writer.name != newest.schema.name:
            raise self._foreign(noun, writer.name)
        try:
            check_size(value)
            record = read(value, start, writer, newest.schema)
        except Exception as error:
            code = "too_large" if isinstance(error, TooLarge) else "undecodable"
            raise _undecodable(noun, explain(error), code) from error
        try:
            return payload.model_validate(record)
        except Exception as error:
            # Not chained: pydantic's own text shows the values, and tracebacks go to the logs.
            raise _undecodable(noun, _unfit(error), "invalid_payload") from None

    async def encode(self, noun: str, payload: Payload) -> bytes:
        """Encode with the newest schema of `noun`. Raises Reject (does not fit the schema) or Defer."""
        newest = self._schemas.newest(noun)
        head = self._heads.get(noun) or await self._head(newest)
        try:
            return write(head, newest.schema, payload.model_dump(warnings=False))
        except Exception as error:
            code = "too_large" if isinstance(error, TooLarge) else "unencodable"
            why = str(error) if isinstance(error, Malformed) else _misfit(newest, payload, error)
            raise Reject(f"cannot encode a {type(payload).__name__} as {noun}: {why}", code=code) from None

    async def _head(self, version: Version) -> bytes:
        head = SINGLE_OBJECT + version.schema.fingerprint
        if self._registry is not None:
            schema_id = await self._registry.id_of(version.noun, version.schema.text)
            head = CONFLUENT + schema_id.to_bytes(4, "big")
        self._heads[version.noun] = head
        return head

    def _by_fingerprint(self, noun: str, value: bytes) -> AvroSchema:
        fingerprint = value[2:_SINGLE_OBJECT_HEAD]
        version = self._schemas.by_fingerprint(fingerprint)
        if version is None and len(value) < _SINGLE_OBJECT_HEAD:
            raise _undecodable(noun, "it ends within its single-object frame (C3 01 and 8 bytes of fingerprint)")
        if version is None:
            number = fingerprint[::-1].hex()
            why = f"no schema here has its fingerprint {number}: its sender uses a version that this service lacks"
            raise _undecodable(noun, why, "unknown_schema")
        return version.schema

    async def _by_id(self, noun: str, value: bytes) -> AvroSchema:
        try:
            return await self._registered.writer_of(value)
        except Unwritten as error:
            raise _undecodable(noun, str(error), error.code) from None

    def _foreign(self, noun: str, name: str) -> Reject:
        owner = self._schemas.noun_of(name)
        whose = f"a record of {owner} ({name})" if owner else f"a record named {name}, which no topic here carries"
        return _undecodable(noun, f"it is {whose}", "wrong_schema")


def _undecodable(noun: str, why: str, code: str = "undecodable") -> Reject:
    return Reject(f"cannot decode the value as {noun}: {why}", code=code)


def _unframed(value: bytes) -> str:
    if len(value) < 2:
        return f"it has {len(value)} bytes, too few for any frame"
    return (
        f"it begins with {value[:2].hex(' ').upper()}, and an Avro record with C3 01 (single-object encoding) "
        "or 00 (schema registry): its sender wrote no frame, or no Avro"
    )


def _unfit(error: Exception) -> str:
    """Say which field of a payload is wrong, without its value."""
    if not isinstance(error, ValidationError):
        return f"checking it raised {type(error).__name__}"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))[:100]
    return f"its field {field} is not valid: {first['msg'][:200]}"


def _misfit(version: Version, payload: Payload, error: Exception) -> str:
    """Say why a payload does not fit its schema, without its values."""
    wanted = {field["name"] for field in version.schema.writing["fields"]}
    had = set(type(payload).model_fields)
    if wanted != had:
        return f"its fields are not those of {version.path.name}: {', '.join(sorted(wanted ^ had))}"
    if isinstance(error, UnicodeEncodeError):
        return "a text in it is no valid Unicode (half of a surrogate pair)"
    return f"a value in it does not fit its field ({type(error).__name__})"

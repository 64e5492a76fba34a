"""Keys, values and headers of change records as plain mappings: JSON, JSON with its schema, or Avro.

Kafka Connect's JsonConverter writes the value itself, or with `schemas.enable` both as {"schema", "payload"}; its Avro
converters write Confluent's wire format. Columns of bytes come out as `bytes`, so that nobody takes them for text:
where JSON has no schema they cannot be told from text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pipeline.core.errors import Reject
from pipeline.wire.avro import AvroSchema, explain, read
from pipeline.wire.registered import CONFLUENT, CONFLUENT_HEAD, Registered, SchemaRegistry, Unwritten

Row = Mapping[str, object]
"""A record of named values: a whole change, a row, or a key."""

MAX_CHANGE_BYTES = 8_388_608
"""The largest change that is read: a row before and after, with the longest bodies that are indexed, escaped."""
MAX_KEY_BYTES = 65_536
"""The largest key, in a record's key or in a header."""

_STRAIGHT_CONVERTER = (
    "set the connector's converters to JSON, or to Avro in Confluent framing (of Apicurio's: as-confluent=true, "
    "headers.enabled=false, use-id=contentId)"
)


class Values:
    """Reads what one connector or several have written."""

    def __init__(self, registry: SchemaRegistry | None = None) -> None:
        """Ask `registry` what the ids in Avro records mean."""
        self._registered = Registered(registry)

    async def read(self, data: bytes, what: str, limit: int) -> Row:
        """Read the record in `data`, which sentences call `what` and which has at most `limit` bytes.

        Raises Reject, with a clause that shows nothing of the data, or Defer as the registry does.
        """
        if len(data) > limit:
            raise Reject(f"{what} has {len(data)} bytes, more than the {limit} that are read", code="too_large")
        if data[:1] != CONFLUENT:
            return _from_json(data, what)
        try:
            writer = await self._registered.writer_of(data)
        except Unwritten as error:
            raise Reject(f"{what} is not as Avro should be: {error}; {_STRAIGHT_CONVERTER}", code=error.code) from None
        try:
            return _from_avro(data, writer, what)
        except Reject:
            # A registry that was wiped gives ids anew: then it is not the record that is wrong.
            await self._registered.check()
            raise


def _from_avro(data: bytes, writer: AvroSchema, what: str) -> Row:
    try:
        return read(data, CONFLUENT_HEAD, writer, writer)
    except Exception as error:
        # Anything at all: fastavro has no list of its errors. Not chained, as it may show what was read.
        why = f"{what} cannot be read with its schema {writer.name}: {explain(error)}"
        raise Reject(why, code="undecodable") from None


def _from_json(data: bytes, what: str) -> Row:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise Reject(f"{what} is neither JSON nor framed Avro; {_STRAIGHT_CONVERTER}", code="undecodable") from None
    except RecursionError:
        raise Reject(f"{what} nests too deep to be read", code="undecodable") from None
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Reject(f"{what} is no JSON{where}; {_STRAIGHT_CONVERTER}", code="undecodable") from None
    if _has_schema(value):
        value = _payload(value["schema"], value["payload"])
    if not isinstance(value, dict):
        raise Reject(f"{what} is JSON, but no object: it must hold columns by name", code="undecodable")
    return value


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


def _has_schema(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"schema", "payload"}
        and isinstance(value["schema"], dict)
        and "type" in value["schema"]
    )


def _payload(schema: Mapping[str, Any], payload: Any) -> Any:
    """Return the payload with each value of bytes as such, in the record itself and in the rows it holds."""
    if not isinstance(payload, dict):
        return payload
    for field in _fields_of(schema):
        name, kind = field.get("field"), field.get("type")
        if not isinstance(name, str) or payload.get(name) is None:
            continue
        if kind == "struct" and name in {"before", "after"}:
            payload[name] = _payload(field, payload[name])
        elif kind == "bytes":
            payload[name] = str(payload[name]).encode()  # base64 still: no one needs to know what they are
    return payload


def _fields_of(schema: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    fields = schema.get("fields")
    return [field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else ()

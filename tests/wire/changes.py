"""Change records made by hand, and what a decoder makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.core.errors import Reject
from pipeline.core.payloads import Document, Payload
from pipeline.core.record import Headers, Record
from pipeline.core.tables import Tables, parse_tables
from pipeline.wire.debezium import ChangeDecoder

TOPIC = "app.public.notes"
Row = dict[str, Any]
ROW: Row = {"id": "n1", "tenant": "acme", "title": "Hours", "body": "We open at nine.", "lang": "en", "revision": 3}
REVISION = {"version": {"column": "revision", "as": "integer"}, "replica_identity": "full"}
MOMENT = {"version": {"column": "updated_at", "as": "timestamp"}, "replica_identity": "full"}
FULL = {"replica_identity": "full"}


def tables(**changes: Any) -> Tables:
    """A mapping of one table, with some entries changed."""
    entry = {"source": "notes", "id": "id", "tenant": {"column": "tenant"}, "title": "title", "body": "body"}
    return parse_tables({"tables": {TOPIC: {**entry, "fields": ["lang"], **changes}}, "ignored": ["app.x"]}, "t.yaml")


def envelope(op: object = "c", after: object = None, before: object = None, **changes: Any) -> Row:
    """A change as Debezium writes it: of `ROW`, unless another is given."""
    row = ROW if after is None and op in ("r", "c", "u") else after
    source = {"lsn": 77, "ts_ms": 1_700_000_000_123, "table": "notes"}
    return {"before": before, "after": row, "source": source, "op": op, "ts_ms": 1_700_000_000_999, **changes}


def record(value: object, key: object = None, headers: Mapping[str, object] | None = None) -> Record:
    """A record of these; bytes and None stand for themselves, all else is written as JSON."""
    names: Headers = tuple((name, _bytes(told)) for name, told in (headers or {}).items())
    return Record(TOPIC, 0, 0, _bytes({"id": "n1"} if key is None else key), _bytes(value), names)


def _bytes(told: object) -> bytes | None:
    return told if isinstance(told, bytes | None) else json.dumps(told).encode()


async def decode(given: Record, **changes: Any) -> Payload:
    """Decode a record by the mapping of one table, with some entries changed."""
    return await ChangeDecoder(tables(**changes)).decode(given, TOPIC)


async def document(given: Record, **changes: Any) -> Document:
    """Decode a record that is a document."""
    made = await decode(given, **changes)
    assert isinstance(made, Document)
    return made


async def refused(given: Record, code: str, **changes: Any) -> str:
    """Return the one sentence that a record is refused with."""
    with pytest.raises(Reject) as caught:
        await decode(given, **changes)
    reason = caught.value.reason
    assert caught.value.code == code, reason
    assert caught.value.__cause__ is None
    assert "\n" not in reason
    assert len(reason) < 400
    assert TOPIC in reason
    return reason

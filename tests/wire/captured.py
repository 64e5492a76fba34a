"""The recorded change events of tests/data/cdc, as records, and the registry that their Avro names."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.errors import Reject
from pipeline.core.record import Record

FOLDER = Path(__file__).parents[1] / "data" / "cdc"

Bytes = Callable[[str | None], bytes | None]


class AvroShelf:
    """A registry that knows the schemas of 21-avro.jsonl."""

    def __init__(self) -> None:
        entries = json.loads((FOLDER / "21-avro-schemas.json").read_text("utf-8"))
        self.texts = {entry["id"]: json.dumps(entry["schema"]) for entry in entries}
        self.asked = 0

    async def schema(self, schema_id: int) -> str:
        self.asked += 1
        if schema_id not in self.texts:
            raise Reject(f"the registry does not know {schema_id}", code="unknown_schema")
        return self.texts[schema_id]

    async def id_of(self, noun: str, schema: str) -> int:
        raise AssertionError("nothing is written")

    async def check(self) -> None:
        """Its ids mean what they did."""


def captured(name: str) -> list[Record]:
    """Read the records of a file, in their order."""
    path = FOLDER / name
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    read: Bytes = _from_base64 if name.startswith("21-") else _from_text
    return [_record(json.loads(line), read) for line in text.decode("utf-8").splitlines()]


def _record(line: dict[str, Any], read: Bytes) -> Record:
    headers = tuple((name, read(value)) for name, value in line["headers"])
    at, key, value = line["timestamp_ms"], read(line["key"]), read(line["value"])
    return Record(line["topic"], line["partition"], line["offset"], key, value, headers, at)


def _from_text(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _from_base64(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)

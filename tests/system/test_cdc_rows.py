"""A row that is read from the database is the document that the real Debezium's record of it is, whatever its types."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.source_database import open_source
from pipeline.clients.source_rows import TableRows
from pipeline.core.payloads import Document
from pipeline.core.record import Record
from pipeline.core.tables import Table, parse_tables
from pipeline.devkit.kafka import Broker
from pipeline.devkit.postgres_programs import PostgresMissing
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.debezium_rows import DebeziumRows
from tests.system import cdc_site as cdc

pytestmark = [pytest.mark.system, pytest.mark.kafka, pytest.mark.soak]

COLUMNS = {
    "words": ("text", "'It''s ä 🙂'", "''", "null"),
    "brief": ("varchar(10)", "'v'", "' v '", "''"),
    "padded": ("char(5)", "'ab'", "'é'", "''"),
    "unique_id": ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
    "fine": ("bool", "true", "false"),
    "small": ("int2", "-3", "32767"),
    "middle": ("int4", "2147483647"),
    "large": ("int8", "9007199254740993"),
    "price": ("numeric", "1234567890123456789.1200", "-0.000001", "'NaN'"),
    "cents": ("numeric(10,2)", "12.5", "1e3"),
    "ratio": ("real", "0.1", "3.4e38", "1e-5"),
    "exact": ("double precision", "1e22", "1e-7", "-0.1"),
    "day": ("date", "'2026-03-01'", "'1960-01-01'", "'0001-01-01'"),
    "was": ("timestamp", "'2026-03-01 10:11:12.5'", "'1969-12-31 23:59:59.999999'"),
    "was_3": ("timestamp(3)", "'2026-03-01 10:11:12.5'", "'1969-12-31 23:59:59.999'"),
    "was_0": ("timestamp(0)", "'2026-03-01 10:11:12'"),
    "was_4": ("timestamp(4)", "'2026-03-01 10:11:12.1234'"),
    "at": ("timestamptz", "'2026-03-01 10:11:12.5+02'", "'1960-01-01 00:00:00+00'"),
    "at_3": ("timestamptz(3)", "'2026-03-01 10:11:12.5+02'", "'2026-03-01 10:11:12+02'"),
    "at_1": ("timestamptz(1)", "'2026-03-01 10:11:12.5+02'"),
    "at_0": ("timestamptz(0)", "'2026-03-01 10:11:12+02'"),
    "clock": ("time", "'10:11:12.5'", "'00:00:00'"),
    "clock_3": ("time(3)", "'10:11:12.5'"),
    "told": ("json", """'{"a":  1}'""", "'[1]'"),
    "known": ("jsonb", """'{"b": 2, "a":  [1, 2]}'"""),
    "tree": ("xml", "'<a>1</a>'"),
    "host": ("inet", "'10.0.0.1'", "'10.0.0.1/8'"),
    "net": ("cidr", "'10.0.0.0/8'"),
    "card": ("macaddr", "'08:00:2b:01:02:03'"),
    "number": ("oid", "7"),
    "mood": ("mood", "'busy'"),
    "called": ("short", "'dom'"),
}
ROWS = max(map(len, COLUMNS.values())) - 1
TABLE = f"""
CREATE TYPE mood AS ENUM ('calm', 'busy');
CREATE DOMAIN short AS varchar(20);
CREATE TABLE public.kinds (id int PRIMARY KEY, {", ".join(f"{name} {of[0]}" for name, of in COLUMNS.items())});
ALTER TABLE public.kinds REPLICA IDENTITY FULL;
GRANT SELECT ON public.kinds TO cdc;
ALTER PUBLICATION documents_publication ADD TABLE public.kinds;
"""


def insert(number: int, row: int) -> str:
    """One row, with the values of that column in COLUMNS."""
    values = [of[row + 1] if row + 1 < len(of) else "null" for of in COLUMNS.values()]
    return f"INSERT INTO kinds VALUES ({', '.join([str(number), *values])})"


def mapped(topic: str, body: str) -> Table:
    """The table, with one of its columns for the body, and as a field."""
    entry = {"source": "kinds", "id": "id", "tenant": {"constant": "acme"}, "title": "id", "body": body}
    full = {**entry, "fields": {"kind": body}, "replica_identity": "full"}
    return parse_tables({"tables": {topic: full}}, "t.yaml").tables[topic]


@pytest.mark.within(180)
async def test_rows_are_what_debezium_tells_of_them(kafka: Broker, tmp_path: Path) -> None:
    """In a snapshot and in the stream alike: of each type we know, the two documents differ in their version alone."""
    try:
        async with cdc.cdc_site(tmp_path, kafka.bootstrap_servers) as source:
            await source.sql(TABLE, *(insert(row, row) for row in range(ROWS)))
            await source.connect.run("documents", source.configuration(table_include_list="public.kinds"))
            await source.sql(*(insert(ROWS + row, row) for row in range(ROWS)))
            reader = source.reader("kinds")
            try:
                changes = await reader.until(lambda changes: len(changes) == 2 * ROWS)
            finally:
                reader.close()
            for column in COLUMNS:
                told = await _told(changes, column)
                assert await _read(source.source.address(), column) == told, column
                assert len(told) == 2 * ROWS, column
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


async def _told(changes: Sequence[cdc.Change], column: str) -> dict[str, Any]:
    decoder = ChangeDecoder(parse_tables({"tables": {"t": mapped("t", column)}}, "t.yaml"))
    found = {}
    for change in changes:
        record = Record("t", 0, 0, json.dumps(change.key).encode(), json.dumps(change.row).encode(), ())
        document = await decoder.decode(record, "t")
        assert isinstance(document, Document)
        found[document.id] = _plain(document)
    return found


async def _read(address: str, column: str) -> dict[str, Any]:
    table = mapped("t", column)
    reader = DebeziumRows(table)
    async with open_source(address, time.time) as database:
        rows = TableRows(database, ("public", "kinds"), table.id, reader.columns, reader.optional, reader)
        await rows.prepare()
        return {row.id: row.document and _plain(row.document) async for page in rows.pages() for row in page}


def _plain(document: Document) -> dict[str, Any]:
    return document.model_dump(exclude={"version", "committed_at_ms"})

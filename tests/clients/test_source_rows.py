"""Rows of a real PostgreSQL as documents: pages, samples, single rows, and what cannot be read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pipeline.clients import source_rows
from pipeline.clients.source_database import open_source
from pipeline.clients.source_rows import TableRows, is_standby
from pipeline.core.audit_ports import SourceRow
from pipeline.core.errors import ConfigurationError, Defer
from pipeline.core.tables import Table, parse_tables, table_of
from pipeline.devkit.postgres import Postgres, PostgresConfig, postgres
from pipeline.wire.debezium_rows import DebeziumRows
from tests.postgres_fixture import run_postgres

pytestmark = [pytest.mark.system]

SCHEMA = """
CREATE SCHEMA "Odd ""Shop";
CREATE TYPE mood AS ENUM ('calm', 'busy');
CREATE DOMAIN short AS varchar(20);
CREATE TABLE "Odd ""Shop"."No.tes" ("Id x" int PRIMARY KEY, tenant text, body text);
INSERT INTO "Odd ""Shop"."No.tes" VALUES (7, 'acme', 'We open.');
CREATE TABLE notes (id text PRIMARY KEY, tenant text, title text, body text, lang text, extra bytea);
INSERT INTO notes SELECT 'n' || n, 'acme', 'Note ' || n, 'Body ' || n, 'en' FROM generate_series(1, 25) AS n;
CREATE TABLE pairs (shop text, number int8, tenant text, body text, PRIMARY KEY (shop, number));
INSERT INTO pairs VALUES ('a/b%', 1, 'acme', 'one'), ('a', 2, 'acme', 'two'), ('a', 3, NULL, 'none''s');
CREATE TABLE moments (
    at timestamptz, day date, was timestamp, clock time(3), fine bool, mood mood, code char(4), price numeric,
    name short, unique_id uuid, body text, PRIMARY KEY (at, day, was, clock, fine, mood, code, price, name, unique_id)
);
INSERT INTO moments VALUES (
    '2026-01-02 03:04:05.6+00', '2026-02-03', '2026-03-04 05:06:07.000089', '01:02:03.004', true, 'busy', 'ab', 1.50,
    'x', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'All at once.'
);
CREATE TABLE strange (id text PRIMARY KEY, tenant text, body text, span interval);
CREATE ROLE reader LOGIN;
GRANT SELECT (id, tenant) ON notes TO reader;
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One server with the tables above, for all tests of this module."""
    for server in run_postgres(tmp_path_factory.mktemp("postgres")):
        asyncio.run(_execute(server, SCHEMA))
        yield server


async def _execute(server: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(server.address())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def mapped(topic: str, **changes: Any) -> tuple[str, Table]:
    """A table's entry with some changes."""
    entry = {"source": "notes", "id": "id", "tenant": {"column": "tenant"}, "body": "body", **changes}
    return topic, parse_tables({"tables": {topic: entry}}, "t.yaml").tables[topic]


@asynccontextmanager
async def opened(source: Postgres, topic: str, user: str = "postgres", **changes: Any) -> AsyncIterator[TableRows]:
    """The prepared rows of a table."""
    name, table = mapped(topic, **changes)
    reader = DebeziumRows(table)
    async with open_source(source.address(user=user), time.time) as database:
        rows = TableRows(database, table_of(name, table), table.id, reader.columns, reader.optional, reader)
        await rows.prepare()
        yield rows


async def everything(rows: TableRows) -> Sequence[SourceRow]:
    """All rows, in the order of their ids."""
    return sorted([row async for page in rows.pages() for row in page], key=lambda row: row.id)


async def test_all_rows_come_in_pages(source: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is larger than said, none is lost, and a field whose column is missing is left out."""
    monkeypatch.setattr(source_rows, "PAGE", 10)
    async with opened(source, "app.public.notes", title="title", fields=["lang", "gone"]) as rows:
        sizes = [len(page) async for page in rows.pages()]
        found = await everything(rows)
    assert sizes == [10, 10, 5]
    assert {row.id for row in found} == {f"n{n}" for n in range(1, 26)}
    made = found[0].document
    assert made is not None
    assert (made.title, made.body, made.tenant, made.fields) == ("Note 1", "Body 1", "acme", {"lang": "en"})


async def test_pages_are_of_one_moment(source: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is inserted while pages are read is in none of them; asked for by itself, it is there."""
    monkeypatch.setattr(source_rows, "PAGE", 10)
    async with opened(source, "app.public.notes") as rows:
        pages = rows.pages()
        first = await anext(pages)
        await _execute(source, "INSERT INTO notes VALUES ('late', 'acme', '', 'Late.')")
        seen = {row.id for row in first} | {row.id async for page in pages for row in page}
        late = await rows.one("late")
        await _execute(source, "DELETE FROM notes WHERE id = 'late'")
        gone = await rows.one("late")
    assert "late" not in seen
    assert late is not None
    assert late.document is not None
    assert gone is None


async def test_a_reading_that_is_given_up_can_be_closed(source: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its connection is free, so that the database can be closed as well."""
    monkeypatch.setattr(source_rows, "PAGE", 10)
    async with opened(source, "app.public.notes") as rows, aclosing(rows.pages()) as pages:
        assert len(await anext(pages)) == 10


async def test_a_sample_has_so_many_rows(source: Postgres) -> None:
    """Rows drawn at random are different ones; of a small table all are drawn."""
    async with opened(source, "app.public.notes") as rows:
        some, all_of_them = await rows.some(5), await rows.some(500)
    assert len({row.id for row in some}) == 5
    assert len({row.id for row in all_of_them}) == 25


async def test_names_are_quoted(source: Postgres) -> None:
    """A schema, a table and a column may be called anything."""
    async with opened(source, "t", table='Odd "Shop.No.tes', id="Id x") as rows:
        assert [row.id for row in await everything(rows)] == ["7"]
        assert await rows.one("7") is not None
        assert await rows.one("7'; DROP TABLE notes") is None
        assert await rows.one("99999999999999999999") is None


async def test_ids_of_several_columns_are_found_again(source: Postgres) -> None:
    """What an id is put together of is taken apart; a row that would be refused says why, under its id."""
    async with opened(source, "app.public.pairs", id=["shop", "number"]) as rows:
        found = {row.id: row for row in await everything(rows)}
        assert found.keys() == {"a%2Fb%25/1", "a/2", "a/3"}
        for name, row in found.items():
            assert await rows.one(name) == row
        for wrong in ("a", "a/b/1", "a/x", "a/02", "a\x00/2", ""):
            assert await rows.one(wrong) is None
    refused = found["a/3"]
    assert refused.document is None
    assert "tenant" in refused.refusal
    assert not refused.unknown


async def test_a_key_of_any_type_is_found_again(source: Postgres) -> None:
    """Times, numbers, enums, padded texts and domains come back to the row that they were made of."""
    names = ["at", "day", "was", "clock", "fine", "mood", "code", "price", "name", "unique_id"]
    async with opened(source, "app.public.moments", id=names, tenant={"constant": "acme"}) as rows:
        (row,) = await everything(rows)
        assert await rows.one(row.id) == row
        assert await rows.one(row.id.replace("1.50", "1.5")) is None
        assert await rows.one(row.id.replace("busy", "lazy")) is None
    assert row.id == (
        "2026-01-02T03:04:05.600000Z/20487/1772600767000089/3723004/true/busy/ab  /1.50/x/"
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    )


@pytest.mark.parametrize(
    "topic, changes, user, sentence",
    [
        ("app.public.nothing", {}, "postgres", "has no table public.nothing"),
        ("app.public.notes", {"title": "headline"}, "postgres", "public.notes has no column 'headline'"),
        ("app.public.notes", {}, "reader", "the role 'reader' .* may not read the column 'body'"),
        ("app.public.strange", {"title": "span"}, "postgres", "column 'span' is of the type interval"),
    ],
)
async def test_what_is_missing_is_said(
    source: Postgres, topic: str, changes: dict[str, Any], user: str, sentence: str
) -> None:
    """A table or a column that is not there, a right that was not granted, a type that nobody knows: one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        async with opened(source, topic, user, **changes):
            pass


async def test_bytes_are_refused(source: Postgres) -> None:
    """A column of bytes is no text, whatever is in it."""
    await _execute(source, r"UPDATE notes SET extra = '\x01' WHERE id = 'n1'")
    async with opened(source, "app.public.notes", title="extra") as rows:
        row = await rows.one("n1")
    assert row is not None
    assert row.document is None
    assert "no text" in row.refusal


async def test_a_primary_database_is_no_standby_and_one_that_is_away_defers(source: Postgres) -> None:
    """Whether it may be behind is asked of the database itself."""
    async with open_source(source.address(), time.time) as database:
        assert not await is_standby(database)
    async with open_source("postgresql://postgres@127.0.0.1:1/x", time.time) as database:
        with pytest.raises(Defer):
            await is_standby(database)


async def test_a_server_in_recovery_is_a_standby(source: Postgres, tmp_path: Path) -> None:
    """It may be read, and says itself that it follows another."""
    async with postgres(PostgresConfig(tmp_path)) as follower:
        await follower.stop()
        (follower._data / "standby.signal").touch()
        await follower.restart()
        async with open_source(follower.address(), time.time) as database:
            assert await is_standby(database)


async def test_the_planner_s_guess_is_a_number(source: Postgres) -> None:
    """A table that was never analysed counts as none, which is no error."""
    async with opened(source, "app.public.notes") as rows:
        assert await rows.count() >= 0

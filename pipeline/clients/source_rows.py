"""The rows of one table, each column as the database spells it: the port `SourceRows`.

Debezium reads the same texts from the log, and makes its values of them; so does who is handed them here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from pipeline.clients.source_database import SourceDatabase
from pipeline.core.audit_ports import ColumnType, RowReader, SourceRow, Types
from pipeline.core.errors import ConfigurationError, Reject

PAGE = 500
"""Rows that are held at once."""
DRAW_SECONDS = 3600.0
"""The longest that drawing rows may take: the keys of the whole table are read for it."""

_SPELLING = """
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, MDY', true),
       set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)
"""
"""What the logical decoding of changes spells values by (`pgoutput` takes it from Debezium's session)."""

_COLUMNS = """
SELECT a.attname::text AS name, n.nspname::text AS schema, b.typname::text AS type,
       CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier,
       b.typtype::text AS kind, b.typcategory = 'A' AS listed, current_user::text AS role,
       has_schema_privilege(s.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable
FROM pg_class c
JOIN pg_namespace s ON s.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_namespace n ON n.oid = b.typnamespace
WHERE s.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COUNT = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)"


class TableRows:
    """Reads one table. It is prepared before anything else is asked."""

    def __init__(
        self,
        database: SourceDatabase,
        name: tuple[str, str],
        key: Sequence[str],
        columns: Collection[str],
        optional: Collection[str],
        reader: RowReader,
    ) -> None:
        """Read the table `name` (schema, table) by `reader`, which needs `columns`, and `optional` where they are."""
        self._database = database
        self._name = name
        self._key = key
        self._needed = columns
        self._optional = optional
        self._reader = reader
        self._types: Types = {}

    @property
    def _table(self) -> str:
        return ".".join(map(_quoted, self._name))

    async def prepare(self) -> None:
        """Look the table and its columns up; see the port."""
        found = {row["name"]: row for row in await self._database.rows(_COLUMNS, *self._name)}
        called = ".".join(self._name)
        if not found:
            raise ConfigurationError(
                f"the source database has no table {called}: mend `table` in PIPELINE_TABLES, or SOURCE_DATABASE_URL"
            )
        for name in self._needed:
            if name not in found:
                raise ConfigurationError(f"the table {called} has no column {name!r}: mend PIPELINE_TABLES")
        wanted = [name for name in dict.fromkeys((*self._needed, *self._optional)) if name in found]
        secret = next((name for name in wanted if not found[name]["readable"]), None)
        if secret is not None:
            role = next(iter(found.values()))["role"]
            raise ConfigurationError(
                f"the role {role!r} of SOURCE_DATABASE_URL may not read the column {secret!r} of {called}: "
                f"GRANT SELECT ON {self._table} TO {_quoted(role)} (and USAGE on its schema)"
            )
        self._types = {name: _type_of(found[name]) for name in wanted}
        try:
            self._reader.check(self._types)
        except ConfigurationError as error:
            raise ConfigurationError(f"the table {called}: {error}") from None

    async def count(self) -> int:
        """Say how many rows the planner expects; see the port."""
        return int((await self._database.rows(_COUNT, self._table))[0][0])

    async def pages(self) -> AsyncGenerator[Sequence[SourceRow], None]:
        """Read all rows as of one moment; see the port."""
        async with self._spelt() as connection:
            page = list[SourceRow]()
            async for row in connection.cursor(self._query(), prefetch=PAGE):
                page.append(self._read(row))
                if len(page) == PAGE:
                    yield page
                    page = []
            yield page

    async def some(self, number: int) -> Sequence[SourceRow]:
        """Draw rows; see the port."""
        key = ", ".join(map(_quoted, self._key))
        drawn = f"WHERE ({key}) IN (SELECT {key} FROM {self._table} ORDER BY random() LIMIT $1)"  # noqa: S608  # names are quoted
        async with self._spelt() as connection:
            rows = await connection.fetch(f"{self._query()} {drawn}", number, timeout=DRAW_SECONDS)
        return [self._read(row) for row in rows]

    async def one(self, document: str) -> SourceRow | None:
        """Find a row by its key, by the index of that; see the port."""
        try:
            texts = self._reader.locate(document, self._types)
        except Reject as untold:
            return SourceRow(document, None, untold.reason, unknown=True)
        if texts is None:
            return None
        named = enumerate(self._key, 1)
        same = " AND ".join(f"{_quoted(name)} = ${n}::text::{_named(self._types[name])}" for n, name in named)
        async with self._spelt() as connection:
            try:
                rows = await connection.fetch(f"{self._query()} WHERE {same}", *texts)
            except asyncpg.DataError:  # the text is none of the type, so no row can have it
                return None
        # What is equal to a database, as 1.0 and 1.00, may be two ids. A row whose id cannot be told is there, too.
        found = map(self._read, rows)
        return next((row for row in found if row.id == document or (row.unknown and not row.id)), None)

    @asynccontextmanager
    async def _spelt(self) -> AsyncIterator[PoolConnectionProxy]:
        async with self._database.snapshot() as connection:
            await connection.execute(_SPELLING)
            yield connection

    def _query(self) -> str:
        # concat() spells a value as the type itself does, which a cast to text does not for char(n), inet and boolean.
        spelt = (f"CASE WHEN {c} IS NOT NULL THEN concat({c}) END" for c in map(_quoted, self._types))
        return f"SELECT {', '.join(spelt)} FROM {self._table}"  # noqa: S608  # all names are quoted, values are passed

    def _read(self, row: asyncpg.Record) -> SourceRow:
        return self._reader.read(dict(zip(self._types, row.values(), strict=True)), self._types)


async def is_standby(database: SourceDatabase) -> bool:
    """Whether the database follows another, and so may be behind it."""
    return bool((await database.rows("SELECT pg_is_in_recovery()"))[0][0])


def _type_of(row: asyncpg.Record) -> ColumnType:
    return ColumnType(row["type"], row["modifier"], row["schema"], row["kind"], row["listed"])


def _named(kind: ColumnType) -> str:
    # By this name a type has no length, to which a text would be cut.
    return f"{_quoted(kind.schema)}.{_quoted(kind.name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""The source database: its address, one that is away, and what a real one answers."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest

from pipeline.clients.source_database import AWAY_SECONDS, open_source
from pipeline.core.errors import ConfigurationError, Defer, Fail, Retry
from pipeline.devkit.postgres import PostgresConfig, postgres
from pipeline.devkit.postgres_programs import PostgresMissing


@pytest.mark.parametrize(
    "url", ["nonsense", "http://a:hidden@b", "postgresql://a:hidden@b:port/c", "postgresql://[::hidden/x", ""]
)
async def test_what_is_no_address_is_refused_and_not_shown(url: str) -> None:
    """A wrong address ends with one sentence that says how to write it, and never repeats its password."""
    with pytest.raises(ConfigurationError, match=r"SOURCE_DATABASE_URL .* write it as") as caught:
        async with open_source(url, lambda: 0.0):
            pass
    assert "hidden" not in str(caught.value)


async def test_a_database_that_is_away_defers_what_is_asked() -> None:
    """Opening says nothing of a database that is away; each question to it is deferred, without its password."""
    async with open_source("postgresql://user:hidden@127.0.0.1:1/shop", lambda: 50.0) as source:
        with pytest.raises(Defer) as caught:
            await source.rows("SELECT 1")
    assert caught.value.until == 50.0 + AWAY_SECONDS
    assert "hidden" not in caught.value.reason


TABLES = """
CREATE TABLE notes (id bigint PRIMARY KEY, tenant uuid, price numeric, body text);
INSERT INTO notes VALUES (7, '00000000-0000-0000-0000-000000000001', 1.50, 'We open at nine.');
SELECT pg_create_logical_replication_slot('notes_slot', 'pgoutput')
"""
BY_ID = "SELECT tenant, price, body FROM notes WHERE id = $1::text::bigint"


@pytest.mark.system
async def test_a_real_database_answers(tmp_path: Path) -> None:
    """A row by its id, as the connector tells it; the columns of a query; what it refuses, and that it never writes.

    A slot that nobody reads has passed nothing, and of one that is not there nobody can tell.
    """
    try:
        async with postgres(PostgresConfig(tmp_path)) as server:
            connection = await asyncpg.connect(server.address())
            for statement in TABLES.strip().split(";"):
                await connection.execute(statement)
            await connection.close()
            async with open_source(server.address(), lambda: 50.0) as source:
                row = {"tenant": "00000000-0000-0000-0000-000000000001", "price": "1.50", "body": "We open at nine."}
                assert await source.row(BY_ID, "7") == row
                assert await source.row(BY_ID, "8") is None
                assert list(await source.columns(BY_ID)) == ["tenant", "price", "body"]
                twice = f"{BY_ID} UNION ALL {BY_ID}"
                for wrong in ("SELECT body FROM nothing WHERE id = $1", "SELECT $1; SELECT 2", "SELECT $1::int", twice):
                    with pytest.raises(Retry):
                        await source.row(wrong, "7")
                with pytest.raises(Retry, match="read-only"):
                    await source.row("WITH gone AS (DELETE FROM notes WHERE id = $1::text::bigint) SELECT 1", "7")
                assert await source.passed("notes_slot") == 0
                with pytest.raises(Fail, match="no replication slot 'other'"):
                    await source.passed("other")
                await server.stop()
                with pytest.raises(Defer):
                    await source.row(BY_ID, "7")
                await server.restart()
                assert await source.row(BY_ID, "7") == row
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))

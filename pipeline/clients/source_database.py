"""The source database, for what its change records cannot tell: it is asked in transactions that cannot write.

A database that is away, or busy, defers; a question that it refuses is retried, and told as it was put.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from pipeline.clients.redact import redact
from pipeline.core.errors import ConfigurationError, Defer, Fail, Outcome, Retry
from pipeline.core.ports import Clock

CONNECTIONS = 4
"""The most connections that one process holds."""
CONNECT_SECONDS = 10.0
QUERY_SECONDS = 60.0
"""The longest wait for a connection, and for an answer."""
AWAY_SECONDS = 10.0
"""How long a call is deferred that found no database."""

_SLOT = """
SELECT active, coalesce(confirmed_flush_lsn, '0/0') - '0/0' AS position FROM pg_replication_slots
WHERE slot_name = $1 AND database = current_database()
"""

_PASSING = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
)


class SourceDatabase:
    """Asks one database over a few connections."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        """Ask over `pool`, which somebody else closes."""
        self._pool = pool
        self._clock = clock

    async def rows(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        """Ask for rows. Raises Defer where the database is away, Retry where it refuses the query."""
        with self._translated():
            rows: Sequence[asyncpg.Record] = await self._pool.fetch(query, *values)
            return rows

    async def row(self, query: str, key: str) -> Mapping[str, object] | None:
        """Ask for a row as it is now; see the port `RowQueries`. Values are as the connector tells them, where text."""
        async with self.snapshot() as connection:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                # It lags, so that a row could be missing that is there.
                raise self._later("the source database is a standby, and rows are read again from the primary only")
            found = await connection.fetch(query, key)
        if len(found) > 1:
            raise Retry(f"a query for one row has found {len(found)}: {query}", code="source_error")
        return {name: _told(value) for name, value in found[0].items()} if found else None

    async def columns(self, query: str) -> Sequence[str]:
        """Name the columns that a query returns; see the port `RowQueries`."""
        async with self.snapshot() as connection:
            return [attribute.name for attribute in (await connection.prepare(query)).get_attributes()]

    async def passed(self, slot: str) -> int:
        """Say up to which position of its log the reader of a replication slot has confirmed it; 0 while nobody reads.

        Raises Fail where the database has no such slot, else what `rows` raises.
        """
        found = await self.rows(_SLOT, slot)
        if not found:
            raise Fail(
                f"as_fresh_as: the source database has no replication slot {slot!r}: let `slot` in PIPELINE_TABLES be "
                "that of its connector, and SOURCE_DATABASE_URL the database that it reads",
                code="freshness_unknown",
            )
        return int(found[0]["position"]) if found[0]["active"] else 0

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """Open a transaction all of whose queries see the same rows; its cursors may be read for as long as it lasts.

        Raises what `rows` raises.
        """
        with self._translated():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (asyncpg.PostgresError, *_PASSING) as error:
            raise self._outcome(error) from error

    def _outcome(self, error: Exception) -> Outcome:
        what = redact(f"the source database {type(error).__name__} {error}")
        return self._later(what) if isinstance(error, _PASSING) else Retry(what, code="source_error")

    def _later(self, why: str) -> Defer:
        return Defer(why, until=self._clock() + AWAY_SECONDS, code="source_away")


def _told(value: object) -> object:
    """Spell what a connector tells as text too; other values are what they are."""
    return str(value) if isinstance(value, UUID | Decimal) else value


@asynccontextmanager
async def open_source(url: str, clock: Clock) -> AsyncIterator[SourceDatabase]:
    """Open the database at `url` (postgresql://...); one that is away is no error yet.

    Raises ConfigurationError for what is no such address. It is never shown: it may hold a password.
    """
    _check(url)
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=CONNECTIONS,
        timeout=CONNECT_SECONDS,
        command_timeout=QUERY_SECONDS,
        server_settings={"application_name": "llm-event-pipeline", "default_transaction_read_only": "on"},
    )
    async with pool:
        yield SourceDatabase(pool, clock)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("postgresql", "postgres") and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise ConfigurationError(
            "SOURCE_DATABASE_URL is no address of a PostgreSQL database: write it as "
            "postgresql://<user>:<password>@<host>:<port>/<database>"
        )

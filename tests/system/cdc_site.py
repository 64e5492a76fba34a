"""A source, a worker and a connector for the tests of change-data capture, and a reader of what they write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from pipeline.devkit.connect import Connect, ConnectConfig, Source, connector_configuration, kafka_connect
from pipeline.devkit.connect_worker import Mode
from pipeline.devkit.postgres import Postgres, PostgresConfig, postgres
from pipeline.resources import resource
from tests.kafka_fixture import kafka_config

SETTINGS = resource("deploy", "connect")
PLACEHOLDER = "unavailable-3f6d0c"
BOTH = "public.documents,public.documents_default"
REPEATS = {"exactly.once.source.support": "disabled", "offset.flush.interval.ms": "1000"}
"""With it a distributed worker that was killed sends again what it had sent since it last wrote its offsets."""

# The tables of the captured records: one with the replica identity that source.sql gives it, one without.
_TABLES = """
CREATE TABLE public.documents (id text PRIMARY KEY, tenant text, title text, body text, updated_at timestamptz);
CREATE TABLE public.documents_default (LIKE public.documents INCLUDING ALL);
CREATE TABLE public.other (number int);
"""
_SECOND = """
GRANT SELECT ON public.documents_default TO cdc;
ALTER PUBLICATION documents_publication ADD TABLE public.documents_default;
"""


@dataclass(frozen=True)
class Change:
    """One record of a change topic. `row` is the decoded value; None for a tombstone."""

    partition: int
    offset: int
    key: dict[str, str] | None
    row: dict[str, Any] | None
    headers: dict[str, str]

    @property
    def op(self) -> str:
        """What happened; a tombstone is "-"."""
        return str(self.row["op"]) if self.row else "-"

    def side(self, name: str) -> dict[str, Any]:
        """`before` or `after`, which must be there."""
        assert self.row is not None
        found = self.row[name]
        assert isinstance(found, dict), f"{name} of {self}"
        return found


class Reader:
    """Reads all partitions of a topic from their beginning, and remembers what it has read."""

    def __init__(self, bootstrap_servers: str, topic: str, isolation: str = "read_uncommitted") -> None:
        self.changes: list[Change] = []
        self._topic = topic
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": "none", "isolation.level": isolation, "log_level": 0}
        )
        self._assigned = False

    async def until(self, enough: Callable[[Sequence[Change]], bool], seconds: float = 60.0) -> list[Change]:
        """Read on until what was read is enough; a TimeoutError tells what came instead."""
        try:
            async with asyncio.timeout(seconds):
                while not enough(self.changes):
                    await asyncio.to_thread(self._read)
        except TimeoutError:
            came = [(change.key, change.op) for change in self.changes[-20:]]
            raise TimeoutError(f"{self._topic} has {len(self.changes)} records, at last {came}") from None
        return self.changes

    def close(self) -> None:
        """Let the consumer go."""
        self._consumer.close()

    def _read(self) -> None:
        if not self._assigned:
            partitions = self._consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions
            self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in partitions])
            self._assigned = bool(partitions)
        for message in self._consumer.consume(500, 0.2):
            assert message.error() is None, message.error()
            key, value = message.key(), message.value()
            headers = {name: _text(value) for name, value in dict(message.headers() or []).items()}
            self.changes.append(
                Change(
                    message.partition() or 0,
                    message.offset() or 0,
                    json.loads(key) if key else None,
                    json.loads(value) if value else None,
                    headers,
                )
            )


def _text(header: str | bytes | None) -> str:
    return header.decode() if isinstance(header, bytes) else header or ""


@dataclass(frozen=True)
class Site:
    """What runs. `prefix` is that of the connector's topics, its own on a broker that tests share."""

    source: Postgres
    connect: Connect
    bootstrap_servers: str
    prefix: str

    async def sql(self, *statements: str) -> None:
        """Run statements in the source, each in a transaction of its own."""
        connection = await asyncpg.connect(self.source.address())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def value(self, query: str) -> Any:
        """The first value of a query's answer."""
        connection = await asyncpg.connect(self.source.address())
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    @asynccontextmanager
    async def open_transaction(self, statement: str) -> AsyncIterator[None]:
        """A statement is done, but committed only after the block."""
        connection = await asyncpg.connect(self.source.address())
        try:
            async with connection.transaction():
                await connection.execute(statement)
                yield
        finally:
            await connection.close()

    async def kill(self) -> None:
        """SIGKILL for the worker at its worst moment: while it writes what it keeps in a file of its own.

        A standalone one has lost its offsets then: it takes a new snapshot, which tells no deletion. So what is to go
        on after a kill runs distributed, with offsets in Kafka; they are there once `until_passed` has returned.
        """
        await self.connect.kill()
        offsets = self.connect.log.with_name("connect.offsets")
        if offsets.exists():
            offsets.write_bytes(b"")

    async def until_passed(self) -> None:
        """Wait until the connector's slot is beyond all that the source's log has now, and its offsets are written."""
        written = await self.value("SELECT pg_current_wal_lsn()::text")
        behind = "SELECT confirmed_flush_lsn < '{}' FROM pg_replication_slots WHERE slot_name = 'documents_slot'"
        while await self.value(behind.format(written)):
            await asyncio.sleep(0.2)

    def configuration(self, **changes: str) -> dict[str, str]:
        """The project's connector with this site's names; a change's underscores stand for dots."""
        own = {"topic.prefix": self.prefix, "table.include.list": BOTH, "heartbeat.interval.ms": "500"}
        return connector_configuration(SETTINGS, own | {name.replace("_", "."): text for name, text in changes.items()})

    def reader(self, table: str, isolation: str = "read_uncommitted") -> Reader:
        """A new reader of a table's topic."""
        return Reader(self.bootstrap_servers, f"{self.prefix}.public.{table}", isolation)


@asynccontextmanager
async def cdc_site(
    folder: Path, bootstrap_servers: str, mode: Mode = "standalone", changes: Mapping[str, str] | None = None
) -> AsyncIterator[Site]:
    """A source with the tables of the captured records, and a worker (with `changes`) without connectors yet."""
    kafka, prefix = kafka_config(folder), f"cdc{uuid4().hex[:8]}"
    # A cluster of workers of its own: one that finds the topics of another takes over its connectors.
    own = {"group.id": prefix} | {
        f"{part}.storage.topic": f"{prefix}-{part}" for part in ("config", "offset", "status")
    }
    async with postgres(PostgresConfig(folder / "postgres")) as source:
        config = ConnectConfig(
            settings=SETTINGS,
            cache=kafka.cache,
            data=folder / "connect",
            bootstrap_servers=bootstrap_servers,
            environment=Source(source.host, source.port, "postgres", PLACEHOLDER).environment,
            mode=mode,
            changes={**(own if mode == "distributed" else {}), **(changes or {})},
            java_home=kafka.java_home,
        )
        async with kafka_connect(config) as connect:
            site = Site(source, connect, bootstrap_servers, prefix)
            await site.sql(_TABLES, (SETTINGS / "source.sql").read_text(encoding="utf-8"), _SECOND)
            yield site

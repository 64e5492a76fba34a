"""What an audit of the index is made of: the tables that are configured, the database they are in, and the index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY

from pipeline.clients.source_database import SourceDatabase, open_source
from pipeline.clients.source_rows import TableRows, is_standby
from pipeline.core.errors import ConfigurationError
from pipeline.core.tables import Table, Tables, table_of
from pipeline.ops.index_audit import Audited, AuditPorts, Findings, Options, Progress, audit
from pipeline.ops.index_differences import KINDS
from pipeline.runtime.probes import serve_probes
from pipeline.settings import Configured
from pipeline.settings_tables import load_tables
from pipeline.stages.index import cut
from pipeline.telemetry.metrics import AuditMetrics
from pipeline.wire.debezium_rows import DebeziumRows
from pipeline.wiring import CLOCK, open_index


@dataclass(frozen=True, slots=True)
class Auditor:
    """Audits what is chosen, as often as it is asked."""

    tables: Tables
    database: SourceDatabase
    live: Any
    only: Sequence[str]

    async def run(self, options: Options, progress: Progress) -> Sequence[Findings]:
        """Audit once.

        Raises ConfigurationError for a table that is not as the mapping says, and where a standby is to be trusted;
        Defer where the database or the index is away, Retry where one errs.
        """
        if options.fix and await is_standby(self.database):
            raise ConfigurationError(
                "SOURCE_DATABASE_URL is that of a standby, which may be behind the index: --fix needs the primary one"
            )
        index = await self.live.current()
        wanted = self._wanted(await index.sources())
        for one in wanted:
            if one.rows:
                await one.rows.prepare()
        return await audit(wanted, AuditPorts(index, self.live, cut, asyncio.sleep, progress), options)

    def _wanted(self, held: Sequence[str]) -> Sequence[Audited]:
        found = [
            Audited(table.source, self._rows(topic, table), table.version.column is not None)
            for topic, table in self.tables.tables.items()
            if not self.only or topic in self.only or table.source in self.only
        ]
        mapped = {table.source for table in self.tables.tables.values()}
        others = [source for source in held if source not in mapped]
        found += [Audited(source) for source in others if not self.only or source in self.only]
        known = {*self.tables.tables, *mapped, *others}
        unknown = next((name for name in self.only if name not in known), None)
        if unknown is not None:
            raise ConfigurationError(
                f"--table {unknown}: neither a topic nor a source; there are {', '.join(sorted(known))}"
            )
        return found

    def _rows(self, topic: str, table: Table) -> TableRows:
        reader = DebeziumRows(table)
        return TableRows(self.database, table_of(topic, table), table.id, reader.columns, reader.optional, reader)


@asynccontextmanager
async def open_auditor(configured: Configured, only: Sequence[str]) -> AsyncIterator[Auditor]:
    """Open what an audit reads and writes; `only` names topics or sources, all where it is empty.

    Raises ConfigurationError that names the variable that is missing or wrong.
    """
    path = configured.settings.tables
    if path is None:
        raise ConfigurationError("PIPELINE_TABLES is not set: an audit needs the file that maps tables to documents")
    url = configured.environment.get("SOURCE_DATABASE_URL")
    if url is None:
        raise ConfigurationError(
            "SOURCE_DATABASE_URL is not set: an audit needs the database that the tables of PIPELINE_TABLES are in"
        )
    tables = load_tables(path)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_source(url, CLOCK))
        live = await stack.enter_async_context(open_index(configured))
        yield Auditor(tables, database, live, only)


class Watch:
    """Tells probes and metrics what the last audit found."""

    def __init__(self) -> None:
        """Begin before the first one."""
        self._metrics = AuditMetrics(REGISTRY)
        self._state = (True, "no audit has ended yet")

    def status(self) -> tuple[str, bool, str]:
        """Say how the last audit went; one that could not be carried out is not ready."""
        return "index audit", *self._state

    def done(self, findings: Sequence[Findings]) -> None:
        """Note what an audit found."""
        self._metrics.differences.clear()
        for one in findings:
            for kind in KINDS:
                self._metrics.differences.labels(one.source, kind).set(one.kinds[kind] - one.mended[kind])
        self._metrics.at.set(CLOCK())
        self._state = True, f"{sum(one.open for one in findings)} differences"

    def failed(self, reason: str) -> None:
        """Note that an audit could not be carried out."""
        self._state = False, reason


@asynccontextmanager
async def open_watch(configured: Configured) -> AsyncIterator[tuple[Watch, str]]:
    """Serve `/metrics` and the other probes while the block runs; yields their address, too."""
    settings, watch = configured.settings, Watch()
    async with serve_probes(settings.probes_host, settings.probes_port, [watch], REGISTRY) as url:
        yield watch, url

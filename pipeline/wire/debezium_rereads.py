"""Rows that are read again from the source database, for what their changes do not tell: the port `Rereads`.

A row that is read is as new as the change that asks for it, or newer. It is taken for as new: should the row have gone
on since, its next change has a higher version and wins. Where there is no row it was deleted since, or has another key,
and the record that says so is on its way.
"""

from __future__ import annotations

from pipeline.core.errors import ConfigurationError, Defer, Reject, Retry
from pipeline.core.index_ports import RowQueries
from pipeline.core.payloads import Document, Nothing
from pipeline.core.ports import Clock
from pipeline.core.tables import Table, Tables
from pipeline.wire.debezium_documents import with_body
from pipeline.wire.debezium_values import Row

UNSEEN_SECONDS = 10.0
"""How long after its commit a row may be unseen: one that waits for a standby is sent to the connector before."""


class RereadRows:
    """Reads rows by the queries of a mapping; where no table has one, it asks nobody."""

    def __init__(self, tables: Tables | None, rows: RowQueries | None, clock: Clock) -> None:
        """Ask `rows`, which only a mapping without a query can do without."""
        self._tables = {table.source: table for table in tables.tables.values() if table.reread} if tables else {}
        self._rows = rows
        self._clock = clock

    async def check(self) -> None:
        """Look whether the queries return the bodies, if the database answers.

        Raises ConfigurationError that says which does not, or which the database refuses, and why.
        """
        for table in self._tables.values():
            try:
                columns = await self._asked().columns(table.reread or "")
            except Defer:
                return
            except Retry as refused:
                raise ConfigurationError(f"PIPELINE_TABLES: `reread` of {table.source}: {refused.reason}") from None
            missing = [name for name in table.body if name not in columns]
            if missing:
                told = f"the query returns no column {', '.join(missing)}, which `body` names: add it"
                raise ConfigurationError(f"PIPELINE_TABLES: `reread` of {table.source}: {told}")

    async def reread(self, document: Document) -> Document | Nothing | None:
        """Add the body that the row has now; see the port."""
        table = self._tables.get(document.source)
        if table is None:
            return None
        row = await self.row(table, document.id, document.committed_at_ms)
        if isinstance(row, Nothing):
            return row
        try:
            return with_body(table, document, row)
        except Reject as error:
            told = f"cannot index the row that `reread` of {table.source} has found: {error.reason}"
            raise Reject(told, code=error.code) from None

    async def row(self, table: Table, name: str, committed_at_ms: int | None) -> Row | Nothing:
        """Read the row of the document called `name`, whose change was committed then; Nothing where it is gone.

        Raises what the database raises, and Defer while the row may only not be seen yet.
        """
        row = await self._asked().row(table.reread or "", name)
        if row is not None:
            return row
        seen = (committed_at_ms or 0) / 1000 + UNSEEN_SECONDS
        if self._clock() < seen:
            raise Defer("the row of the change is not there to be read", until=seen, code="row_unseen")
        return Nothing(why="the row is gone since; the change that took it away tells more")

    def _asked(self) -> RowQueries:
        assert self._rows is not None  # noqa: S101  # whoever configures a query has a database
        return self._rows

"""Change records of Debezium into documents: the port `RecordDecoder`.

Source: Debezium 3.6 reference, "Connector for PostgreSQL", "New Record State Extraction".
"""

from __future__ import annotations

from collections.abc import Collection

from pipeline.core.errors import Reject
from pipeline.core.payloads import Document, Nothing, Payload
from pipeline.core.record import Record
from pipeline.core.tables import Table, Tables
from pipeline.wire.debezium_changes import Change, read_change
from pipeline.wire.debezium_columns import identity
from pipeline.wire.debezium_documents import deletion, document, truncation
from pipeline.wire.debezium_rereads import RereadRows
from pipeline.wire.debezium_values import MAX_CHANGE_BYTES, MAX_KEY_BYTES, Values
from pipeline.wire.registered import SchemaRegistry

NEW_KEY, OLD_KEY = "__debezium.newkey", "__debezium.oldkey"
"""Headers of the two halves of a key's change, a deletion under the old key and a creation under the new one."""
OPERATION = "__op"
"""The header in which ExtractNewRecordState may tell the operation (`add.headers=op`)."""


class ChangeDecoder:
    """Reads the changes of the tables that a mapping names.

    A document's id is made of the record's key alone, so that its states, its deletion and its moves agree on it.
    """

    def __init__(
        self, tables: Tables, registry: SchemaRegistry | None = None, rereads: RereadRows | None = None
    ) -> None:
        """Read what `tables` maps; `registry` tells what the ids in Avro records mean, `rereads` what is not told."""
        self._tables = tables
        self._rereads = rereads
        self._ignored = frozenset(tables.ignored)
        self._values = Values(registry)

    @property
    def topics(self) -> Collection[str]:
        """The topics it reads: those with a table. Of an ignored one, nothing is asked."""
        return self._tables.tables.keys()

    async def decode(self, record: Record, topic: str) -> Payload:
        """Decode a record that first stood on `topic` into a Document, or Nothing with the reason why.

        Raises Reject (with a reason for people, which shows no values), Defer (the registry or the database is away) or
        Retry (the database refuses a query).
        """
        table = self._tables.tables.get(topic)
        if table is None and topic in self._ignored:
            return Nothing(why=f"the topic {topic} is among those that PIPELINE_TABLES ignores")
        try:
            if table is None:
                raise Reject("no table of PIPELINE_TABLES has it: map it there, or add it to ignored", code="no_table")
            return await self._decode(record, table)
        except Reject as error:
            raise Reject(f"cannot read a change on the topic {topic}: {error.reason}", code=error.code) from None

    async def _decode(self, record: Record, table: Table) -> Document | Nothing:
        operation = _header(record, OPERATION)
        told = operation.decode("ascii", "replace") if operation else None
        if record.value is None:
            return _tombstone(told)
        change = read_change(await self._values.read(record.value, "the value", MAX_CHANGE_BYTES), told)
        if isinstance(change, Nothing):
            return change
        if change.operation == "truncate":
            return truncation(table, change)
        if record.key is None:
            why = "the record has no key, so the document has no id: give the table a primary key, or the connector "
            raise Reject(why + "message.key.columns for it", code="no_key")
        key = await self._values.read(record.key, "the key", MAX_KEY_BYTES)
        return await self._of_row(record, table, change, identity(key, table.id, "the key"))

    async def _of_row(self, record: Record, table: Table, change: Change, name: str) -> Document | Nothing:
        if change.operation == "delete":
            if await self._moved(record, NEW_KEY, table) == name:
                # The creation that follows has the same version: after it, this would remove what it brought.
                return Nothing(why="the key changed in what is no part of the id; its creation tells the new state")
            return deletion(table, change, name)
        former = await self._moved(record, OLD_KEY, table)
        try:
            return document(table, change, name, former)
        except Reject as error:
            if error.code != "unavailable_value" or table.reread is None or self._rereads is None:
                raise
        row = await self._rereads.row(table, name, change.committed_at_ms)
        return row if isinstance(row, Nothing) else document(table, change, name, former, row)

    async def _moved(self, record: Record, header: str, table: Table) -> str | None:
        """Make the id of the other key that a header tells; None where the key did not change."""
        other = _header(record, header)
        if other is None:
            return None
        what = f"the header {header}"
        return identity(await self._values.read(other, what, MAX_KEY_BYTES), table.id, what)


def _tombstone(operation: str | None) -> Nothing:
    if operation == "d":
        raise Reject(
            "the record is an unwrapped deletion without its row, and so without a version: set "
            "delete.tombstone.handling.mode=rewrite in ExtractNewRecordState",
            code="no_version",
        )
    return Nothing(why="a tombstone: the deletion before it says the same")


def _header(record: Record, name: str) -> bytes | None:
    """Return a header's value; its last occurrence counts."""
    return next((value for header, value in reversed(record.headers) if header == name), None)

"""From a change and its key to a document.

An update does not tell a large value that it left as it was (PostgreSQL keeps it out of line, "TOAST", and does not
log it again), unless the table has REPLICA IDENTITY FULL; Debezium then writes a placeholder. Where that is:

- the whole body: the document says so (`body_kept`) and has an empty body;
- anything else, or one of several body columns: the document cannot be made, and the record is refused.

Either is spared by what was read again of the row (`debezium_rereads`): it stands where the change tells nothing.
What the change does tell stays, also where the row has gone on since: its next change brings that.

A text that equals the placeholder is a user's own only where the table is known to have full identity *and* the change
bears that out: a row that was inserted or read in a snapshot, or an update that tells what the column held before it.
Otherwise it is the placeholder, so that at worst a text stays as it was, and the placeholder is never taken for a text.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.errors import Reject
from pipeline.core.payloads import Document
from pipeline.core.tables import Table
from pipeline.wire.debezium_changes import Change
from pipeline.wire.debezium_columns import column, text, version
from pipeline.wire.debezium_values import Row

_FULL = "ALTER TABLE ... REPLICA IDENTITY FULL makes Debezium tell it"
_UNREAD: Row = {}


def document(table: Table, change: Change, name: str, former: str | None, read: Row = _UNREAD) -> Document:
    """Make the document called `name` of a row that was read, created or updated. Raises Reject.

    `former` is the id of its key before, if the change gave the row another key; `read` are columns read again.
    """
    row = _Row(table, change, former is not None, read)
    body, kept = row.body()
    return Document(
        source=table.source,
        id=name,
        tenant=row.tenant(),
        title=" ".join(part for part in row.texts(table.title, "title") if part),
        body=body,
        version=_version(table, change),
        fields=row.fields(),
        committed_at_ms=change.committed_at_ms,
        body_kept=kept,
        former=None if former == name else former,
    )


def deletion(table: Table, change: Change, name: str) -> Document:
    """Make the deletion of the document called `name`. Whose it was may not be told: only the version is needed."""
    return Document(
        source=table.source,
        id=name,
        tenant=_last_tenant(table, change.row or {}),
        title="",
        body="",
        version=_version(table, change) + (table.version.column is not None),
        deleted=True,
        committed_at_ms=change.committed_at_ms,
    )


def with_body(table: Table, kept: Document, read: Row) -> Document:
    """Give a document whose body is kept the one in a row that was read again. Raises Reject."""
    change = Change("read", None, None, None, None, "")
    body, _ = _Row(table, change, moved=False, read=read).body()
    return kept.model_copy(update={"body": body, "body_kept": False, "former": None})


def truncation(table: Table, change: Change) -> Document:
    """Make the end of all documents of the table. Raises Reject where versions are those of a column: it tells none."""
    if table.version.column is not None:
        raise Reject(
            f"a truncation tells no row, and so no version in the column {table.version.column!r}: remove the table's "
            "documents by an audit or a rebuild of the index, or use version: lsn in PIPELINE_TABLES",
            code="no_version",
        )
    return Document(
        source=table.source,
        id="",
        tenant="",
        title="",
        body="",
        version=_version(table, change),
        deleted=True,
        emptied=True,
        committed_at_ms=change.committed_at_ms,
    )


def _last_tenant(table: Table, row: Row) -> str:
    of = table.tenant
    if of.column is None:
        return of.constant or ""
    try:
        tenant = text(row.get(of.column), of.column) or ""
    except Reject:
        return ""
    return "" if tenant == table.placeholder else tenant


def _version(table: Table, change: Change) -> int:
    name = table.version.column
    if name is not None:
        row = change.row or {}
        if change.operation == "delete" and row.get(name) is None:
            why = f"the deletion does not tell the column {name!r} of its row, which holds the version: {_FULL}"
            raise Reject(why, code="no_version")
        return version(row, name, table.version.reads)
    if change.lsn is None:
        why = f"the change does not tell {change.where_lsn}; without it, let `version` in PIPELINE_TABLES name a column"
        raise Reject(why, code="no_version")
    return change.lsn


class _Row:
    """The row that a change leaves, in which a value that is neither told nor `read` is known as such."""

    def __init__(self, table: Table, change: Change, moved: bool, read: Row) -> None:
        self._table = table
        self._change = change
        self._row = change.row or {}
        self._moved = moved
        self._read: Row = {}
        self._read = {name: value for name, value in read.items() if name not in self._row or self._left_out(name)}
        self._row = {**self._row, **self._read} if self._read else self._row

    def tenant(self) -> str:
        of = self._table.tenant
        tenant = of.constant if of.column is None else self.texts((of.column,), "tenant")[0]
        if not tenant:
            why = f"the column {of.column!r} is empty, so it is not known whose the document is: fill it for every row"
            raise Reject(why, code="no_tenant")
        return tenant

    def body(self) -> tuple[str, bool]:
        """Return the body, and whether it is kept instead."""
        names = self._table.body
        if all(map(self._left_out, names)):
            return "", True
        return "\n\n".join(part for part in self.texts(names, "body") if part), False

    def fields(self) -> dict[str, str]:
        """Return what requests filter by. Rows from before a column was added do not have it."""
        columns = {field: name for field, name in self._table.fields.items() if name in self._row}
        told = zip(columns, self.texts([*columns.values()], "fields"), strict=True)
        return {field: value for field, value in told if value is not None}

    def texts(self, names: Sequence[str], entry: str) -> list[str | None]:
        """Return what some columns hold, in their order. Raises Reject where the change leaves one out."""
        if any(map(self._left_out, names)):
            some = "a part of the body" if entry == "body" else f"a column of `{entry}`"
            why = f"the change does not tell {some}, a large value that it left as it was: {_FULL}, or `reread` it"
            raise Reject(why, code="unavailable_value")
        return [text(column(self._row, name, entry), name) for name in names]

    def _left_out(self, name: str) -> bool:
        if self._row.get(name) != self._table.placeholder or name in self._read:
            return False
        return self._table.replica_identity != "full" or not self._must_tell(name)

    def _must_tell(self, name: str) -> bool:
        """Whether the change cannot have left out a value: then the placeholder in its place is somebody's text."""
        if self._change.operation == "update":
            return (self._change.before or {}).get(name) is not None
        return not self._moved

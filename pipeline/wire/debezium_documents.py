"""From a change and its key to a document.

An update does not tell a large value that it left as it was (PostgreSQL keeps it out of line, "TOAST", and does not
log it again), unless the table has REPLICA IDENTITY FULL; Debezium then writes a placeholder. Where that is:

- the whole body: the document says so (`body_kept`) and has an empty body;
- anything else, or one of several body columns: the document cannot be made, and the record is refused.

A text that equals the placeholder is a user's own only where the table is known to have full identity *and* the change
bears that out: a row that was inserted or read in a snapshot, or an update that tells the row before it. Otherwise it
is the placeholder, so that at worst a text stays as it was, and the placeholder is never taken for a text.
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


def document(table: Table, change: Change, key: Row, name: str, former: str | None) -> Document:
    """Make the document called `name` of a row that was read, created or updated. Raises Reject."""
    row = _Row(table, change, key, former is not None)
    body, kept = row.body()
    return Document(
        source=table.source,
        id=name,
        tenant=row.tenant(),
        title=" ".join(part for part in row.told(table.title, "title") if part),
        body=body,
        version=_version(table, change),
        fields=row.fields(),
        committed_at_ms=change.committed_at_ms,
        body_kept=kept,
        former=former,
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
    """The row that a change leaves, with what it does not tell known as such."""

    def __init__(self, table: Table, change: Change, key: Row, moved: bool) -> None:
        self._table = table
        self._row = change.row or {}
        own = table.replica_identity == "full" and _tells_all(change, key, moved)
        self._unavailable = None if own else table.placeholder

    def tenant(self) -> str:
        of = self._table.tenant
        tenant = of.constant if of.column is None else self.told((of.column,), "tenant")[0]
        if not tenant:
            why = f"the column {of.column!r} is empty, so it is not known whose the document is: fill it for every row"
            raise Reject(why, code="no_tenant")
        return tenant

    def body(self) -> tuple[str, bool]:
        """Return the body, and whether it is kept instead."""
        names = self._table.body
        if self._unavailable is not None and any(self._row.get(name) == self._unavailable for name in names):
            if all(self._row.get(name) == self._unavailable for name in names):
                return "", True
            raise _unavailable("body")
        return "\n\n".join(part for part in self.told(names, "body") if part), False

    def fields(self) -> dict[str, str]:
        """Return what requests filter by. Rows from before a column was added do not have it."""
        columns = {field: name for field, name in self._table.fields.items() if name in self._row}
        told = zip(columns, self.told([*columns.values()], "fields"), strict=True)
        return {field: value for field, value in told if value is not None}

    def told(self, names: Sequence[str], entry: str) -> list[str | None]:
        """Return the texts of some columns, in their order."""
        values = [text(column(self._row, name, entry), name) for name in names]
        if self._unavailable is not None and self._unavailable in values:
            raise _unavailable(entry)
        return values


def _tells_all(change: Change, key: Row, moved: bool) -> bool:
    """Whether a change shows that nothing in it was left out: then the placeholder is somebody's text."""
    if change.operation == "update":
        # With default identity, what is told of the row before is its key at most; the rest of it is null.
        return any(value is not None and name not in key for name, value in (change.before or {}).items())
    return not moved


def _unavailable(entry: str) -> Reject:
    some = "a part of the body" if entry == "body" else f"a column of `{entry}`"
    why = f"the change does not tell {some}, a large value that it left as it was: {_FULL}"
    return Reject(why, code="unavailable_value")

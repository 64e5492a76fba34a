"""What a change record says, whatever its shape: Debezium's envelope, or a row that ExtractNewRecordState unwrapped.

The envelope is {before, after, source, op, ...} with `op` one of r (snapshot read), c (create), u (update), d (delete),
t (truncate) and m (a message of somebody's own). An unwrapped row has its columns at the top, and beside them what
`add.fields` adds: `__op`, `__source_lsn`, `__source_ts_ms`, and `__deleted`, which is a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.errors import Reject
from pipeline.core.payloads import Nothing
from pipeline.wire.debezium_values import Row

Operation = Literal["read", "create", "update", "delete", "truncate"]

MAX_LONG = 2**63 - 1
"""The highest number that a version or a time may have."""

_OPERATIONS: dict[str, Operation] = {"r": "read", "c": "create", "u": "update", "d": "delete", "t": "truncate"}

LSN_OF_ENVELOPE = "source.lsn, which Debezium's connector for PostgreSQL tells"
LSN_OF_ROW = "__source_lsn: add.fields=op,source.lsn,source.ts_ms of ExtractNewRecordState adds it"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row, or of a whole table. `row` is the state that it leaves; of a deletion, the last one told.

    `before` is an update's state before, where it is told. `lsn` is None where it is not told, and `where_lsn` says
    where it should have been. `committed_at_ms` is when the source committed the change.
    """

    operation: Operation
    row: Row | None
    before: Row | None
    lsn: int | None
    committed_at_ms: int | None
    where_lsn: str


def read_change(value: Row, header_operation: str | None) -> Change | Nothing:
    """Find out what `value` says; an unwrapped row may tell its operation in the header `__op` only.

    Raises Reject, with a clause, for what is no change or has an operation that is not known.
    """
    if "op" in value and isinstance(value.get("source"), dict):
        return _of_envelope(value)
    if "__op" in value or "__deleted" in value or header_operation is not None:
        return _of_row(value, header_operation)
    if value.keys() == {"ts_ms"}:
        return Nothing(why="a heartbeat")
    if value.get("status") in ("BEGIN", "END") and "event_count" in value:
        return Nothing(why="a mark of a transaction")
    raise Reject(
        "the value is neither Debezium's envelope (before, after, source, op) nor an unwrapped row with __op or "
        "__deleted (add.fields=op,source.lsn,source.ts_ms and delete.tombstone.handling.mode=rewrite of "
        "ExtractNewRecordState)",
        code="not_a_change",
    )


def _of_envelope(value: Row) -> Change | Nothing:
    if value["op"] == "m":
        return Nothing(why="a message that somebody wrote into the database's log")
    operation = _operation(value["op"])
    before, after, source = _row(value.get("before")), _row(value.get("after")), _row(value["source"]) or {}
    if operation in {"read", "create", "update"} and after is None:
        raise Reject(f"the change has the operation {operation} and no row after it", code="not_a_change")
    return Change(
        operation=operation,
        row=before if operation == "delete" else after,
        before=before if operation == "update" else None,
        lsn=_long(source.get("lsn")),
        committed_at_ms=_long(source.get("ts_ms")),
        where_lsn=LSN_OF_ENVELOPE,
    )


def _of_row(value: Row, header_operation: str | None) -> Change:
    # Without an operation it may be any that leaves a row: an update is the one that claims least.
    deleted = value.get("__deleted") in ("true", True)
    operation = "delete" if deleted else _operation(value.get("__op", header_operation) or "u")
    lsn, committed = value.get("__source_lsn", value.get("__lsn")), value.get("__source_ts_ms")
    return Change(operation, value, None, _long(lsn), _long(committed), LSN_OF_ROW)


def _operation(op: object) -> Operation:
    found = _OPERATIONS.get(op) if isinstance(op, str) else None
    if found is None:
        told = repr(op[:20]) if isinstance(op, str) else type(op).__name__
        raise Reject(f"the operation {told} is not known: r, c, u, d, t and m are", code="unknown_operation")
    return found


def _row(value: object) -> Row | None:
    return value if isinstance(value, dict) else None


def _long(value: object) -> int | None:
    """Read a number that counts from 0; what is none is not told."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LONG else None

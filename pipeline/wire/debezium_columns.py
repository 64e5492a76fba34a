"""Columns as a document needs them: texts, an id of several, and a version."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pipeline.core.errors import Reject
from pipeline.wire.debezium_changes import MAX_LONG
from pipeline.wire.debezium_values import Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = (
    "an integer from 0 to 2^63 - 2",
    "a timestamp since 1970 as a text of ISO 8601 with its offset from UTC (for a number, as: integer)",
)


def column(row: Row, name: str, entry: str) -> object:
    """Return the value of a column that an `entry` of the mapping names. Raises Reject where there is none."""
    try:
        return row[name]
    except KeyError:
        why = f"the row has no column {name!r}, gone or misspelt: bring it back, or mend `{entry}` in PIPELINE_TABLES"
        raise Reject(why, code="no_column") from None


def text(value: object, name: str) -> str | None:
    """Spell a column's value; None stays None. Numbers are written as in JSON, and true and false in small letters.

    Raises Reject for what is no text: bytes (so a `numeric` under decimal.handling.mode=precise), arrays, structures.
    """
    match value:
        case None | str():
            spelt = value
        case bool():
            spelt = "true" if value else "false"
        case int():
            spelt = str(value)
        case float() if math.isfinite(value):
            spelt = repr(value)
        case _:
            raise Reject(
                f"the column {name!r} is of a type that is no text ({type(value).__name__}): leave it out of "
                "PIPELINE_TABLES, or, for a number, set decimal.handling.mode=string in the connector",
                code="unreadable_column",
            )
    if spelt and not spelt.isascii():
        _check_unicode(spelt, name)
    return spelt


def _check_unicode(spelt: str, name: str) -> None:
    try:
        spelt.encode()
    except UnicodeEncodeError:
        why = f"the column {name!r} holds half of a surrogate pair, which is no valid Unicode"
        raise Reject(why, code="unreadable_column") from None


def identity(key: Row, names: Sequence[str], what: str) -> str:
    """Make a document's id of the columns `names` of a key, called `what` in sentences.

    One column is taken as it is. Several are joined by "/", and "%" and "/" within them become "%25" and "%2F", so that
    two keys never share an id. Raises Reject where the key does not have them all.
    """
    parts = []
    for name in names:
        if name not in key:
            raise Reject(
                f"{what} has no column {name!r}: let `id` in PIPELINE_TABLES name columns of the table's key, or add "
                "the column to the connector's message.key.columns",
                code="no_id",
            )
        part = text(key[name], name)
        if not part:
            raise Reject(f"the column {name!r} in {what} is empty, so the document has no id", code="no_id")
        parts.append(part)
    return parts[0] if len(parts) == 1 else "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def version(row: Row, name: str, reads: str | None) -> int:
    """Read a version from the column `name`, as a timestamp or an integer. Raises Reject where it does not tell one."""
    value = column(row, name, "version")
    if value is None:
        why = f"the column {name!r} is null, so the change has no version: fill it for every row"
        raise Reject(why, code="no_version")
    found = _timestamp(value) if reads == "timestamp" else value
    # One below the most: a deletion counts one more.
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < MAX_LONG:
        return found
    why = f"the column {name!r} does not hold {_FORMS[reads == 'timestamp']}: mend `version` in PIPELINE_TABLES"
    raise Reject(why, code="no_version")


def _timestamp(value: object) -> int | None:
    """Turn a timestamp's text into microseconds since the epoch; None for what is none, or has no offset from UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo is None:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)

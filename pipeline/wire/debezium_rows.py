"""Rows of PostgreSQL as Debezium would tell them in a snapshot, and so as the same documents: the port `RowReader`.

Values are those of the connector of `deploy/connect` in JSON: decimal.handling.mode=string, and the default
time.precision.mode=adaptive. Source: Debezium 3.6 reference, "Connector for PostgreSQL", "Data type mappings"; a test
holds each conversion against the real one. What has no such conversion is said to be unknown, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

from pipeline.core.audit_ports import ColumnType, RowTexts, SourceRow, Types
from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.tables import Table
from pipeline.wire.debezium_changes import Change
from pipeline.wire.debezium_columns import identity
from pipeline.wire.debezium_documents import document

Told = Callable[[str, int], object]
"""From a value's text and its type's modifier to what Debezium tells."""
Spelt = Callable[[str, int], str]
"""The way back."""

UNKNOWN = "unknown_value"
"""The code of what it is not known how Debezium would tell."""

_DAY_0 = date(1970, 1, 1)
_MOMENT_0 = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00)?")
"""A time of the years 1 to 9999, with its offset where it has one; infinity and other years are spelt otherwise."""
_BYTES = b"bytes"


class DebeziumRows:
    """Reads the rows of one table into documents, just as the decoder of changes does."""

    def __init__(self, table: Table) -> None:
        """Read what `table` maps."""
        self._table = table

    @property
    def columns(self) -> Collection[str]:
        """The columns that a row must have."""
        table = self._table
        single = [name for name in (table.tenant.column, table.version.column) if name is not None]
        return list(dict.fromkeys((*table.id, *single, *table.title, *table.body)))

    @property
    def optional(self) -> Collection[str]:
        """The columns that are read where the table has them."""
        return list(self._table.fields.values())

    def check(self, types: Types) -> None:
        """Refuse types that are not known; see the port."""
        unknown = next((name for name, kind in types.items() if _conversion(kind) is None), None)
        if unknown is not None:
            raise ConfigurationError(
                f"its column {unknown!r} is of the type {types[unknown].name}, of which an audit does not know how "
                "Debezium tells it: leave the column out of PIPELINE_TABLES, or keep its text in a column of its own"
            )

    def read(self, row: RowTexts, types: Types) -> SourceRow:
        """Read one row; see the port."""
        name = ""
        try:
            # First of all whose row it is: of one that cannot be read, that has to be known as well.
            name = identity(
                {key: _told(key, row[key], types[key]) for key in self._table.id}, self._table.id, "the row"
            )
            told = {column: _told(column, text, types[column]) for column, text in row.items()}
            change = Change("read", told, None, lsn=0, committed_at_ms=None, where_lsn="")
            made = document(self._table, change, name, None)
        except Reject as error:
            return SourceRow(name, None, error.reason, unknown=error.code == UNKNOWN)
        if made.body_kept:
            return SourceRow(name, None, "its body is the placeholder, which its change would not tell", unknown=True)
        return SourceRow(name, made)

    def locate(self, document: str, types: Types) -> Sequence[str] | None:
        """Take an id apart again; see the port."""
        names = self._table.id
        if len(names) == 1:
            parts = [document]
        else:
            parts = [part.replace("%2F", "/").replace("%25", "%") for part in document.split("/")]
        if len(parts) != len(names):
            return None
        try:
            return [_spelt(part, types[name]) for name, part in zip(names, parts, strict=True)]
        except ValueError:
            return None
        except OverflowError:
            why = "its id holds a date or a time that only the database can spell, as infinity is"
            raise Reject(why, code=UNKNOWN) from None


def _conversion(kind: ColumnType) -> tuple[Told, Spelt] | None:
    if kind.array:
        return _LIST
    if kind.kind == "e":
        return _TEXT
    # A type of somebody else's may have any name.
    return _TYPES.get(kind.name) if kind.schema == "pg_catalog" or kind.name == "citext" else None


def _told(name: str, text: str | None, kind: ColumnType) -> object:
    found = _conversion(kind)
    if text is None or found is None:
        return None
    try:
        return found[0](text, kind.modifier)
    except (ValueError, OverflowError):
        why = f"the column {name!r} holds a {kind.name} of which it is not known how Debezium tells it"
        raise Reject(why, code=UNKNOWN) from None


def _spelt(text: str, kind: ColumnType) -> str:
    found = _conversion(kind)
    if found is None:
        raise ValueError
    return found[1](text, kind.modifier)


def _same(text: str, _: int) -> str:
    return text


def _integer(text: str, _: int) -> int:
    return int(text)


def _boolean(text: str, _: int) -> bool:
    return text == "t"


def _number(text: str, _: int) -> str:
    if text == "NaN":
        return "NAN"
    if text[-1] == "y":  # Infinity
        raise ValueError
    return text


def _float(text: str, _: int) -> float:
    if text[-1] in "Ny":  # NaN and Infinity, which JSON tells as texts and Avro as numbers
        raise ValueError
    return float(text)


def _bytes(_: str, __: int) -> bytes:
    return _BYTES  # nobody takes them for text, whatever they are


def _list(_: str, __: int) -> object:
    return []


def _date(text: str, _: int) -> int:
    return (date.fromisoformat(text) - _DAY_0).days


def _spelt_date(text: str, _: int) -> str:
    return (_DAY_0 + timedelta(days=int(text))).isoformat()


def _timestamp(text: str, modifier: int) -> int:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError
    moment = datetime.fromisoformat(f"{found[1]}T{found[2]}.{(found[3] or '').ljust(6, '0')}+00:00")
    return (moment - _MOMENT_0) // (_MICROSECOND * _unit(modifier))


def _spelt_timestamp(text: str, modifier: int) -> str:
    moment = _MOMENT_0 + timedelta(microseconds=int(text) * _unit(modifier))
    return moment.replace(tzinfo=None).isoformat(" ")


def _time(text: str, modifier: int) -> int:
    told = time.fromisoformat(text)  # but for 24:00:00
    whole = timedelta(hours=told.hour, minutes=told.minute, seconds=told.second, microseconds=told.microsecond)
    return whole // (_MICROSECOND * _unit(modifier))


def _spelt_time(text: str, modifier: int) -> str:
    micros = int(text) * _unit(modifier)
    return (_MOMENT_0 + timedelta(microseconds=micros)).time().isoformat()


def _unit(modifier: int) -> int:
    """Return the microseconds of the unit that times of a precision are told in: of up to three decimals, 1,000."""
    return 1_000 if 0 <= modifier <= 3 else 1


def _moment(text: str, modifier: int) -> str:
    found = _MOMENT.fullmatch(text)
    if found is None or found[4] is None:
        raise ValueError
    digits = 6 if modifier < 0 else modifier
    decimals = (found[3] or "").ljust(digits, "0")
    return f"{found[1]}T{found[2]}{'.' if digits else ''}{decimals}Z"


_TEXT: tuple[Told, Spelt] = (_same, _same)
_LIST: tuple[Told, Spelt] = (_list, _same)
_TYPES: Mapping[str, tuple[Told, Spelt]] = {
    **dict.fromkeys("text varchar bpchar citext uuid json jsonb xml inet cidr macaddr".split(), _TEXT),
    **dict.fromkeys(("int2", "int4", "int8", "oid"), (_integer, _same)),
    **dict.fromkeys(("float4", "float8"), (_float, _same)),
    "bool": (_boolean, _same),
    "numeric": (_number, _same),
    "bytea": (_bytes, _same),
    "date": (_date, _spelt_date),
    "timestamp": (_timestamp, _spelt_timestamp),
    "time": (_time, _spelt_time),
    "timestamptz": (_moment, _same),
}

"""Rows as Debezium would tell them; each conversion is held against the real one in tests/system/test_cdc_rows.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.audit_ports import ColumnType, SourceRow
from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.payloads import Document
from pipeline.core.tables import PLACEHOLDER, Table
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.debezium_rows import UNKNOWN, DebeziumRows
from tests.wire.captured import captured
from tests.wire.changes import MOMENT, REVISION, TOPIC, tables

TEXT = ColumnType("text")
NAMES = ("id", "tenant", "title", "body", "lang", "revision", "updated_at")


def mapped(**changes: Any) -> Table:
    """The mapping of one table."""
    return tables(**changes).tables[TOPIC]


def read(row: dict[str, str | None], types: dict[str, ColumnType] | None = None, **changes: Any) -> SourceRow:
    """Read a row of texts, some of whose columns have another type."""
    full = {"id": "n1", "tenant": "acme", "title": "Hours", "body": "We open.", "lang": "en", **row}
    return DebeziumRows(mapped(**changes)).read(full, dict.fromkeys(full, TEXT) | (types or {}))


def of(name: str, modifier: int = -1, **more: Any) -> ColumnType:
    """A type of PostgreSQL."""
    return ColumnType(name, modifier, **more)


async def test_a_row_is_the_document_of_its_snapshot() -> None:
    """What the recorded snapshot tells of a row is what is made of the row itself, but for version and time."""
    mapping = {"source": "documents", "id": "id", "fields": ["updated_at"], "replica_identity": "full"}
    decoder, rows = ChangeDecoder(tables(**mapping)), DebeziumRows(mapped(**mapping))
    types = dict.fromkeys(("id", "tenant", "title", "body"), TEXT) | {"updated_at": of("timestamptz")}
    compared = 0
    for record in captured("01-snapshot.jsonl"):
        after = json.loads(record.value or b"{}")["after"]
        if record.topic != "app.public.documents" or not after["tenant"]:
            continue
        told = await decoder.decode(record, TOPIC)
        assert isinstance(told, Document)
        at = after["updated_at"]
        after["updated_at"] = at and at.replace("T", " ").rstrip("Z").rstrip("0").rstrip(".") + "+00"
        made = rows.read(after, types).document
        assert made == told.model_copy(update={"version": 0, "committed_at_ms": None})
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize(
    "kind, text, told",
    [
        (of("int8"), "-3", "-3"),
        (of("bool"), "t", "true"),
        (of("bool"), "f", "false"),
        (of("numeric"), "1.50", "1.50"),
        (of("numeric"), "NaN", "NAN"),
        (of("float8"), "1e-07", "1e-07"),
        (of("date"), "1960-01-01", "-3653"),
        (of("timestamp"), "1969-12-31 23:59:59.999999", "-1"),
        (of("timestamp", 3), "2026-03-01 10:11:12.5", "1772359872500"),
        (of("time"), "10:11:12.5", "36672500000"),
        (of("time", 3), "10:11:12.5", "36672500"),
        (of("timestamptz"), "2026-03-01 08:11:12.5+00", "2026-03-01T08:11:12.500000Z"),
        (of("timestamptz", 3), "2026-03-01 08:11:12.5+00", "2026-03-01T08:11:12.500Z"),
        (of("timestamptz", 0), "2026-03-01 08:11:12+00", "2026-03-01T08:11:12Z"),
        (of("mood", kind="e", schema="public"), "busy", "busy"),
        (of("citext", schema="public"), "Ab", "Ab"),
    ],
)
def test_values_are_spelt_as_debezium_does_and_found_again(kind: ColumnType, text: str, told: str) -> None:
    """The way there and back: an id of any type leads to the row that it was made of."""
    row = read({"id": text}, {"id": kind})
    assert row.id == told
    (back,) = DebeziumRows(mapped()).locate(told, {"id": kind}) or ("",)
    # PostgreSQL reads these as Debezium spells them, and spells them another way itself.
    assert (
        back == told if kind.name in ("timestamptz", "bool", "numeric") else read({"id": back}, {"id": kind}).id == told
    )


@pytest.mark.parametrize(
    "kind, text",
    [
        (of("date"), "infinity"),
        (of("date"), "0044-03-15 BC"),
        (of("timestamp"), "10000-01-01 00:00:00"),
        (of("timestamptz"), "-infinity"),
        (of("timestamptz"), "2026-03-01 08:11:12"),
        (of("time"), "24:00:00"),
        (of("float8"), "NaN"),
        (of("float4"), "-Infinity"),
        (of("numeric"), "Infinity"),
    ],
)
def test_what_has_no_known_form_is_unknown(kind: ColumnType, text: str) -> None:
    """Such a row is neither refused nor right: nobody guesses."""
    row = read({"title": text}, {"title": kind})
    assert (row.id, row.document, row.unknown) == ("n1", None, True)
    assert f"'title' holds a {kind.name}" in row.refusal


@pytest.mark.parametrize("kind", [of("bytea"), of("_text", array=True), of("_mood", schema="public", array=True)])
def test_bytes_and_lists_are_refused(kind: ColumnType) -> None:
    """They are no text, and so would their change be refused."""
    row = read({"title": "x"}, {"title": kind})
    assert (row.document, row.unknown) == (None, False)
    assert "no text" in row.refusal


def test_a_row_without_tenant_or_id_is_refused() -> None:
    """By the same sentences as its change would be."""
    assert "not known whose" in read({"tenant": None}).refusal
    assert read({"id": ""}).id == ""
    assert "has no id" in read({"id": ""}).refusal


def test_a_placeholder_in_a_row_is_unknown() -> None:
    """With default identity a user's own text that equals it would be taken for an unchanged one."""
    assert read({"body": PLACEHOLDER}).unknown
    full = read({"body": PLACEHOLDER}, replica_identity="full").document
    assert full is not None
    assert full.body == PLACEHOLDER


def test_a_version_is_that_of_its_column() -> None:
    """As an integer or a timestamp; the log's is not told by a row."""
    made = [
        read({}).document,
        read({"revision": "12"}, {"revision": of("int4")}, **REVISION).document,
        read({"updated_at": "1970-01-01 00:00:01+00"}, {"updated_at": of("timestamptz")}, **MOMENT).document,
    ]
    assert [one and one.version for one in made] == [0, 12, 1_000_000]


def test_columns_are_those_of_the_mapping() -> None:
    """Fields may be missing; nothing is asked for twice."""
    rows = DebeziumRows(mapped(id=["id", "tenant"], title=["id", "title"], **REVISION))
    assert list(rows.columns) == ["id", "tenant", "revision", "title", "body"]
    assert list(rows.optional) == ["lang"]
    assert "tenant" not in DebeziumRows(mapped(tenant={"constant": "acme"})).columns


def test_a_type_that_is_not_known_is_named() -> None:
    """One of somebody else's with a known name is not known either."""
    rows = DebeziumRows(mapped())
    rows.check({"id": TEXT})
    for kind in (of("interval"), of("money"), of("text", schema="other")):
        with pytest.raises(ConfigurationError, match=f"'title' is of the type {kind.name}"):
            rows.check({"id": TEXT, "title": kind})
    assert rows.locate("x", {"id": of("interval")}) is None


def test_ids_are_taken_apart() -> None:
    """Several columns are told apart whatever they hold; what is no id of this table has no row, but what may stand for
    an infinite date is not said to have none.
    """
    rows, types = DebeziumRows(mapped(id=["id", "lang"])), {"id": TEXT, "lang": of("date")}
    assert rows.locate("a%2Fb%25/1", types) == ["a/b%", "1970-01-02"]
    for wrong in ("a", "a/b/1", "a/x"):
        assert rows.locate(wrong, types) is None
    with pytest.raises(Reject, match="infinity") as caught:
        rows.locate("a/99999999999", types)
    assert caught.value.code == UNKNOWN

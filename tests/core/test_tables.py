"""The mapping of tables to documents: a right one is read whole, a wrong one is one sentence with the cure."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.tables import MAX_COLUMNS, MAX_NAME, PLACEHOLDER, Table, Tenant, VersionOf, parse_tables, table_of

TOPIC = "app.public.notes"
ENTRY: dict[str, Any] = {"source": "notes", "id": "id", "tenant": {"column": "owner"}, "body": "text"}


def _tables(**changes: Any) -> dict[str, Any]:
    return {"tables": {TOPIC: {**ENTRY, **changes}}}


def _table(**changes: Any) -> Table:
    return parse_tables(_tables(**changes), "t.yaml").tables[TOPIC]


def _sentence(data: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_tables(data, "t.yaml")
    assert caught.value.__cause__ is None
    told = str(caught.value)
    assert told.startswith("tables t.yaml: ")
    assert "\n" not in told
    assert len(told) < 1_000
    return told


def test_little_has_to_be_said() -> None:
    """A table without more has no title and no fields, and goes by the lsn."""
    table = _table()
    assert (("id",), ("text",), (), {}) == (table.id, table.body, table.title, table.fields)
    assert (Tenant(column="owner"), VersionOf(), PLACEHOLDER, "default") == (
        table.tenant,
        table.version,
        table.placeholder,
        table.replica_identity,
    )


def test_much_can_be_said() -> None:
    """Lists of columns, a constant tenant, a version of its own, fields by name, and topics that do not matter."""
    version = {"column": "changed", "as": "timestamp"}
    table = _table(id=["shop", "number"], tenant={"constant": "acme"}, version=version, replica_identity="full")
    assert (("shop", "number"), "acme") == (table.id, table.tenant.constant)
    assert ("changed", "timestamp") == (table.version.column, table.version.reads)
    assert VersionOf() == _table(version="lsn").version
    assert {"lang": "lang", "type": "type"} == _table(fields=["lang", "type"]).fields
    assert {"origin": "source"} == _table(fields={"origin": "source"}).fields
    assert ("app.transaction",) == parse_tables({**_tables(), "ignored": ["app.transaction"]}, "t.yaml").ignored


QUERY = "SELECT text FROM notes WHERE id = $1"


@pytest.mark.parametrize("query", [QUERY, f" with x as ({QUERY})\nselect text from x", f"{QUERY}::text::bigint;"])
def test_a_query_reads_rows_again(query: str) -> None:
    """It selects, and has one parameter."""
    assert _table(reread=query).reread == query


@pytest.mark.parametrize(
    "query", ["", "selection of $1", "DELETE FROM notes WHERE id = $1", "SELECT text FROM notes", f"{QUERY} OR id = $2"]
)
def test_what_is_no_query_for_a_row_is_refused(query: str) -> None:
    """The sentence shows how to write one."""
    assert "tables.app.public.notes.reread: write a query with one parameter, as in" in _sentence(_tables(reread=query))


def test_a_slot_is_named_as_postgresql_does() -> None:
    """One for all tables; a name that it cannot have is found at once."""
    assert parse_tables({**_tables(), "slot": "documents_slot"}, "t.yaml").slot == "documents_slot"
    assert parse_tables(_tables(), "t.yaml").slot is None
    assert "slot: " in _sentence({**_tables(), "slot": "Documents slot"})


@pytest.mark.parametrize(
    "changes,told",
    [
        (
            {"colour": 1},
            f"tables.{TOPIC}.colour: this key is not known: use source, table, id, tenant, title, body, version",
        ),
        ({"id": []}, f"tables.{TOPIC}.id: it lists no column: name one at least"),
        ({"body": []}, "body: it lists no column"),
        ({"id": 5}, "id: write a column's name, or a list of names in [ ], as text"),
        ({"id": {"column": "id"}}, "id: write a column's name"),
        ({"title": ["a", 1]}, "title: write a column's name"),
        ({"title": [""]}, f"title: a column's name has 1 to {MAX_NAME} characters"),
        ({"title": ["x" * 300]}, "has 300"),
        ({"title": [str(n) for n in range(MAX_COLUMNS + 1)]}, f"use {MAX_COLUMNS} at most"),
        ({"id": ["a", "a"]}, "id: the column 'a' is listed twice: leave one out"),
        ({"fields": ["a.b"]}, "fields: 'a.b' is no name to filter by"),
        ({"fields": ["größe"]}, "write {<name>: größe}"),
        ({"fields": {"source": "origin"}}, "but not tenant, source, document, title, which all documents have"),
        ({"fields": {"a": 5}}, "fields: write a column's name"),
        ({"fields": {"a": ["b"]}}, "fields: write a column's name"),
        ({"fields": {"a": "b", "c": "b"}}, "fields: the column 'b' is listed twice"),
        ({"fields": 7}, "fields: write a column's name"),
        ({"tenant": "acme"}, "tenant: write {column: acme} for what a column holds, or {constant: acme} for all rows"),
        ({"tenant": {}}, "tenant: write either {column: <name>} or {constant: <tenant>}"),
        ({"tenant": {"column": "a", "constant": "b"}}, "tenant: write either"),
        ({"tenant": {"constant": ""}}, "tenant.constant: "),
        ({"tenant": {"row": "a"}}, "tenant.row: this key is not known: use column, constant"),
        ({"tenant": None}, "tenant: write keys with their values"),
        ({"version": "changed"}, "version: write lsn, or {column: changed, as: integer}, or"),
        ({"version": {"column": "changed"}}, "version: write lsn, or {column: <name>, as: integer}"),
        ({"version": {"as": "integer"}}, "version: write lsn"),
        ({"version": {"column": "c", "as": "date"}}, "version.as: "),
        ({"version": {"column": "c", "by": "x"}}, "version.by: this key is not known: use column, as"),
        ({"version": {"column": "c", "as": "integer"}}, "write replica_identity: full, or use version: lsn"),
        ({"replica_identity": "index"}, "replica_identity: Input should be 'default' or 'full'"),
        ({"placeholder": ""}, "placeholder: "),
        ({"source": ""}, "source: "),
        ({"source": 5}, "source: "),
    ],
)
def test_a_wrong_entry_is_named_with_its_cure(changes: dict[str, Any], told: str) -> None:
    """One sentence names the file, the entry and what to write."""
    assert told in _sentence(_tables(**changes))


@pytest.mark.parametrize(
    "data,told",
    [
        (None, "expected a mapping with tables"),
        ([], "expected a mapping with tables"),
        ({}, "tables: this key is missing: add it"),
        ({"tables": {}}, "it maps no table: name one topic at least"),
        ({"tables": [ENTRY]}, "tables: write keys with their values"),
        ({"tables": {TOPIC: None}}, f"tables.{TOPIC}: write keys with their values"),
        ({"tables": {TOPIC: {}}}, f"tables.{TOPIC}.source: this key is missing"),
        ({**_tables(), "ignore": []}, "ignore: this key is not known: use tables, ignored"),
        ({**_tables(), "ignored": "app.x"}, "ignored: write a list, as in [one, another]"),
        ({**_tables(), "ignored": ["a", "a"]}, "the topic a is given twice"),
        ({**_tables(), "ignored": [TOPIC]}, f"the topic {TOPIC} is given twice: leave it in tables or in ignored"),
        ({**_tables(), "ignored": ["a b"]}, "'a b' is no topic: use 1 to 249 letters"),
        ({"tables": {"": ENTRY}}, "'' is no topic"),
        ({"tables": {TOPIC: ENTRY, "b": ENTRY}}, f"the source 'notes' is that of several topics ({TOPIC}, b)"),
    ],
)
def test_a_wrong_file_is_named_with_its_cure(data: object, told: str) -> None:
    """What is wrong with the whole is said as well."""
    assert told in _sentence(data)


def test_many_mistakes_are_told_in_one_sentence_that_ends() -> None:
    """The first few are told, and how many more there are."""
    told = _sentence(_tables(**{f"key{number}": 1 for number in range(20)}))
    assert told.count("not known") == 6
    assert told.endswith("; and 14 more")


@pytest.mark.parametrize(
    "topic, entry, table",
    [
        ("app.public.notes", None, ("public", "notes")),
        ("public.notes", None, ("public", "notes")),
        ("notes", "sales.Shop.notes", ("sales", "Shop.notes")),
    ],
)
def test_the_table_of_a_topic(topic: str, entry: str | None, table: tuple[str, str]) -> None:
    """What is given counts; else the last two parts of the topic tell the schema and the name."""
    told = {"source": "notes", "id": "id", "tenant": {"constant": "acme"}, "body": "body"}
    mapped = {**told, "table": entry} if entry else told
    assert table_of(topic, parse_tables({"tables": {topic: mapped}}, "t.yaml").tables[topic]) == table


def test_a_table_that_is_not_told_is_asked_for() -> None:
    """Neither a topic of one part nor a name without its schema says which table it is."""
    told = {"source": "notes", "id": "id", "tenant": {"constant": "acme"}, "body": "body"}
    with pytest.raises(ConfigurationError, match=r"notes .* write table: <schema>\.<table>"):
        table_of("notes", parse_tables({"tables": {"notes": told}}, "t.yaml").tables["notes"])
    with pytest.raises(ConfigurationError, match=r"tables\.notes\.table: write the table's name .* public\.documents"):
        parse_tables({"tables": {"notes": {**told, "table": "notes"}}}, "t.yaml")

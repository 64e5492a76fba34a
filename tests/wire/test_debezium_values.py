"""Bad bytes, and columns of every type: each has an outcome, and its sentence shows nothing of the values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.errors import Defer, Reject
from pipeline.core.payloads import Document
from pipeline.core.record import Record
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.debezium_values import MAX_CHANGE_BYTES, MAX_KEY_BYTES
from tests.wire.captured import AvroShelf, captured
from tests.wire.changes import ROW, TOPIC, decode, document, envelope, record, refused, tables

# ------------------------------------------------------------------ JSON


@pytest.mark.parametrize(
    "junk",
    [b"", b" ", b"no json", b"{", b'{"a":', b"\xff\xfe", b"\xef\xbb\xbf{}", b"[1]", b"1", b"null", b'"text"', b"NaN"],
)
async def test_what_is_no_json_object_is_refused(junk: bytes) -> None:
    """In the value as in the key."""
    assert "the value" in await refused(record(junk), "undecodable")
    assert "the key" in await refused(record(envelope(), key=junk), "undecodable")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"9" * 5_000])
async def test_numbers_that_json_does_not_have_are_refused(number: bytes) -> None:
    """Python would read the first three, and stumble over the last."""
    await refused(record(b'{"op": ' + number + b"}"), "undecodable")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_json_that_nests_without_end_is_refused(opening: bytes) -> None:
    """It is made to exhaust the stack, and does not."""
    assert "deep" in await refused(record(opening * 200_000), "undecodable")
    assert "deep" in await refused(record(envelope(), key=opening * 10_000), "undecodable")


async def test_a_body_of_ten_megabytes_is_refused_and_a_long_one_is_not() -> None:
    """The bound is above a row before and after with the longest bodies that are indexed."""
    told = await refused(record(envelope(after={**ROW, "body": "x" * 10_000_000})), "too_large")
    assert str(MAX_CHANGE_BYTES) in told
    long = "語" * 500_000
    assert long == (await document(record(envelope("u", {**ROW, "body": long}, {**ROW, "body": long})))).body
    await refused(record(envelope(), key={"id": "x" * MAX_KEY_BYTES}), "too_large")


def _with_schema(row: dict[str, Any], **types: str) -> dict[str, Any]:
    fields = [{"field": name, "type": types.get(name, "string"), "optional": True} for name in row]
    rows = [{"field": name, "type": "struct", "fields": fields} for name in ("before", "after")]
    schema = {"type": "struct", "fields": [*rows, {"field": "op", "type": "string"}]}
    return {"schema": schema, "payload": envelope(after=row)}


async def test_json_with_its_schema_is_unpacked() -> None:
    """Key and value, each by itself."""
    key = {"schema": {"type": "struct"}, "payload": {"id": "n9"}}
    made = await document(record(_with_schema(ROW), key))
    assert ("n9", "Hours") == (made.id, made.title)


async def test_a_schema_tells_bytes_from_text() -> None:
    """A decimal comes as base64 there, which is nobody's body, tenant or id."""
    for name in ("body", "tenant", "title", "lang"):
        told = await refused(record(_with_schema({**ROW, name: "AfQ="}, **{name: "bytes"})), "unreadable_column")
        assert "decimal.handling.mode=string" in told
        assert name in told
    schema = {"type": "struct", "fields": [{"field": "id", "type": "bytes"}]}
    await refused(record(envelope(), {"schema": schema, "payload": {"id": "AfQ="}}), "unreadable_column")
    row = {**ROW, "price": "AfQ=", "lang": None}
    assert {} == (await document(record(_with_schema(row, price="bytes", lang="bytes")))).fields


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "struct"},
        {"type": "struct", "fields": None},
        {"type": "struct", "fields": [1, {}, {"field": 5, "type": "bytes"}, {"field": "after"}, {"field": "no"}]},
        {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": "x"}]},
    ],
)
async def test_a_strange_schema_does_not_keep_a_row_from_being_read(schema: object) -> None:
    """It is only looked through for bytes."""
    assert "n1" == (await document(record({"schema": schema, "payload": envelope()}))).id


async def test_a_key_of_columns_named_schema_and_payload_is_a_key() -> None:
    """Only an object under `schema` is one."""
    key = {"schema": "public", "payload": 5}
    assert "public/5" == (await document(record(envelope(), key), id=["schema", "payload"])).id


@pytest.mark.parametrize("payload", [None, 5, [1]])
async def test_a_schema_without_a_record_is_refused(payload: object) -> None:
    """There is no row in it."""
    await refused(record({"schema": {"type": "struct"}, "payload": payload}), "undecodable")


# ------------------------------------------------------------------ columns


@pytest.mark.parametrize("name", ["tenant", "title", "body"])
async def test_a_column_that_is_gone_is_refused(name: str) -> None:
    """The sentence names the column and the entry of the mapping."""
    row = {key: value for key, value in ROW.items() if key != name}
    told = await refused(record(envelope(after=row)), "no_column")
    assert f"{name!r}" in told
    assert f"`{name}`" in told


async def test_a_version_column_that_is_gone_is_refused() -> None:
    """The other row of the change is not asked."""
    given = record(envelope(after={"id": "n1", "tenant": "a", "title": "", "body": ""}))
    await refused(given, "no_column", version={"column": "revision", "as": "integer"}, replica_identity="full")


async def test_a_row_from_before_a_column_was_added_can_be_filtered_by_the_others() -> None:
    """Old rows of a topic that is read again do not have what was added to the table since."""
    row = {key: value for key, value in ROW.items() if key != "lang"}
    assert {"name": "Hours"} == (
        await document(record(envelope(after=row)), fields={"l": "lang", "name": "title"})
    ).fields
    assert {} == (await document(record(envelope(after={**ROW, "lang": None})))).fields


@pytest.mark.parametrize(
    "value,expected", [(5, "5"), (2**70, str(2**70)), (1.5, "1.5"), (True, "true"), (False, "false"), ("é", "é")]
)
async def test_plain_values_become_text(value: object, expected: str) -> None:
    """A column that changes from text to number is still read."""
    row = {**ROW, "tenant": value, "title": value, "body": value, "lang": value}
    made = await document(record(envelope(after=row)))
    assert (expected, expected, expected, {"lang": expected}) == (made.tenant, made.title, made.body, made.fields)


@pytest.mark.parametrize("value", [[1], {"scale": 2, "value": "AfQ="}, "\ud800", "ok \udfff"])
@pytest.mark.parametrize("name", ["tenant", "title", "body", "lang"])
async def test_what_is_no_text_is_refused(name: str, value: object) -> None:
    """Arrays, structures and broken Unicode."""
    assert name in await refused(record(envelope(after={**ROW, name: value})), "unreadable_column")


async def test_a_number_without_end_is_refused() -> None:
    """JSON can spell what no float holds."""
    body = json.dumps(envelope(after={**ROW, "lang": "LARGE"})).replace('"LARGE"', "1e999").encode()
    await refused(record(body), "unreadable_column")


@pytest.mark.parametrize("tenant", [None, ""])
async def test_a_row_without_a_tenant_is_refused(tenant: object) -> None:
    """Nobody may find it, and nobody else's passages are touched."""
    await refused(record(envelope(after={**ROW, "tenant": tenant})), "no_tenant")


async def test_empty_columns_are_left_out() -> None:
    """An empty body is a document without text."""
    row = {**ROW, "title": None, "body": "", "lang": "en"}
    made = await document(record(envelope(after=row)), title=["title", "lang"], body=["body", "title"])
    assert ("en", "", False) == (made.title, made.body, made.body_kept)


# ------------------------------------------------------------------ Avro

AVRO = captured("21-avro.jsonl")[6]


async def _avro(given: Record, registry: Any) -> object:
    return await ChangeDecoder(tables(), registry).decode(given, TOPIC)


def _with(value: bytes | None = AVRO.value, key: bytes | None = AVRO.key) -> Record:
    return Record(TOPIC, 0, 0, key, value)


async def test_avro_is_read_with_its_writers_schema() -> None:
    """Key and value have schemas of their own."""
    made = await _avro(_with(), AvroShelf())
    assert isinstance(made, Document)
    assert ("doc-0001", "Opening hours (winter)", 33704096) == (made.id, made.title, made.version)


async def test_avro_without_a_registry_names_the_variable() -> None:
    """The record waits in the dead letters until there is one."""
    assert "SCHEMA_REGISTRY_URL" in await refused(_with(), "unknown_schema")


class _Away:
    async def schema(self, schema_id: int) -> str:
        raise Defer("the registry is away", until=7.0)

    async def id_of(self, noun: str, schema: str) -> int:
        raise AssertionError("nothing is written")

    async def check(self) -> None:
        """Its ids mean what they did."""


async def test_a_registry_that_is_away_defers() -> None:
    """It is not the record's fault."""
    with pytest.raises(Defer, match="away"):
        await _avro(_with(), _Away())


@pytest.mark.parametrize(
    "value,code",
    [
        (b"\x00", "undecodable"),
        (b"\x00\x00\x00\x00\x63rest", "unknown_schema"),
        (b"\x00\xff\xff\xff\xff", "unknown_schema"),
        (b"\x00\x00\x00\x00\x0b", "undecodable"),
        ((AVRO.value or b"")[:-1], "undecodable"),
        ((AVRO.value or b"") + b"x", "undecodable"),
        (b"\x00\x00\x00\x00\x0a" + (AVRO.value or b"")[5:], "undecodable"),
        (AVRO.key, "not_a_change"),
    ],
)
async def test_bad_avro_is_refused(value: bytes, code: str) -> None:
    """Cut, too long, of an unknown schema, or of another one than it says."""
    with pytest.raises(Reject) as caught:
        await _avro(_with(value), AvroShelf())
    assert code == caught.value.code, caught.value.reason
    assert caught.value.__cause__ is None


class _Wiped(AvroShelf):
    async def check(self) -> None:
        raise Defer("the registry is not the one it was", until=7.0)


async def test_a_wiped_registry_is_asked_before_a_record_is_blamed() -> None:
    """Bytes that do not fit the schema of their id wait, where the registry gives ids anew since."""
    with pytest.raises(Defer, match="not the one it was"):
        await _avro(_with((AVRO.value or b"")[:-1]), _Wiped())


class _Shelf:
    def __init__(self, schema: object) -> None:
        self._text = json.dumps(schema)

    async def schema(self, schema_id: int) -> str:
        return self._text

    async def id_of(self, noun: str, schema: str) -> int:
        raise AssertionError("nothing is written")

    async def check(self) -> None:
        """Its ids mean what they did."""


async def test_a_schema_that_is_not_admitted_is_named() -> None:
    """A key of no record, or a schema that nests without end: with its id, and why."""
    for schema in ("string", {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}):
        with pytest.raises(Reject, match="id 11 of the registry") as caught:
            await _avro(_with(), _Shelf(schema))
        assert "unknown_schema" == caught.value.code


async def test_bytes_and_decimals_of_avro_are_refused() -> None:
    """They come out as bytes, which are no text."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": decimal}]}
    given = Record(TOPIC, 0, 0, b"\x00\x00\x00\x00\x01\x04\x01\xf4", json.dumps(envelope()).encode())
    with pytest.raises(Reject, match=r"decimal\.handling\.mode=string") as caught:
        await _avro(given, _Shelf(schema))
    assert "unreadable_column" == caught.value.code


async def test_the_value_may_be_json_where_the_key_is_avro() -> None:
    """Each says by its first byte what it is."""
    given = Record(TOPIC, 0, 0, AVRO.key, json.dumps(envelope()).encode())
    made = await _avro(given, AvroShelf())
    assert isinstance(made, Document)
    assert "doc-0001" == made.id


async def test_sentences_show_no_values() -> None:
    """What a row holds stays out of logs and dead letters' headers."""
    secret = "hunter2"
    for row in ({**ROW, "tenant": [secret]}, {**ROW, "title": {secret: secret}}, {"id": secret, "tenant": secret}):
        with pytest.raises(Reject) as caught:
            await decode(record(envelope(after=row), key={"id": secret}))
        assert secret not in caught.value.reason

"""The decoder of change records: operations, keys, versions, and values that are not told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.errors import Reject
from pipeline.core.payloads import Nothing
from pipeline.core.record import Record
from pipeline.core.tables import PLACEHOLDER
from pipeline.wire.debezium import ChangeDecoder
from tests.wire.changes import (
    FULL,
    MOMENT,
    REVISION,
    ROW,
    TOPIC,
    decode,
    document,
    envelope,
    record,
    refused,
    tables,
)


def _keyless(given: Record) -> Record:
    return replace(given, key=None)


# ------------------------------------------------------------------ topics


async def test_it_reads_the_topics_that_have_a_table() -> None:
    """An ignored topic is not read; what is left of one asks for nothing, whatever its bytes."""
    decoder = ChangeDecoder(tables())
    assert [TOPIC] == list(decoder.topics)
    assert isinstance(await decoder.decode(record(b"\x00junk"), "app.x"), Nothing)


async def test_a_topic_without_a_table_is_refused() -> None:
    """A record that waited in a tier while its table left the mapping says where to put it."""
    with pytest.raises(Reject, match=r"topic app\.other: no table of PIPELINE_TABLES has it: map it") as caught:
        await ChangeDecoder(tables()).decode(record(envelope()), "app.other")
    assert caught.value.code == "no_table"


async def test_a_record_of_a_tier_is_decoded_by_its_first_topic() -> None:
    """The mapping goes by where the record stood first, not by where it stands now."""
    retried = record(envelope())
    assert (await ChangeDecoder(tables()).decode(retried, TOPIC)) == await document(retried)


# ------------------------------------------------------------------ operations


@pytest.mark.parametrize("op", ["r", "c", "u"])
async def test_a_state_of_a_row_is_a_document(op: str) -> None:
    """Its version is the lsn, and its time that of the commit, not the connector's."""
    made = await document(record(envelope(op)))
    assert ("notes", "n1", "acme", "Hours", "We open at nine.") == (
        made.source,
        made.id,
        made.tenant,
        made.title,
        made.body,
    )
    assert (77, 1_700_000_000_123, {"lang": "en"}) == (made.version, made.committed_at_ms, made.fields)
    assert (False, False, False, None) == (made.deleted, made.emptied, made.body_kept, made.former)


async def test_a_time_that_is_not_told_is_not_made_up() -> None:
    """Without source.ts_ms nobody knows when the state was committed."""
    made = await document(record(envelope(source={"lsn": 5})))
    assert (5, None) == (made.version, made.committed_at_ms)


async def test_a_truncation_needs_no_key() -> None:
    """It empties the source up to its version."""
    made = await document(_keyless(record(envelope("t"))))
    assert (True, True, "", 77) == (made.emptied, made.deleted, made.id, made.version)


@pytest.mark.parametrize("op", ["x", "", "delete", 5, None, ["c"], {"c": 1}])
async def test_an_unknown_operation_is_refused(op: object) -> None:
    """What a later Debezium may bring is a person's matter, never skipped."""
    await refused(record(envelope(op, after=ROW)), "unknown_operation")


@pytest.mark.parametrize("op", ["r", "c", "u"])
async def test_a_state_without_a_row_is_refused(op: str) -> None:
    """`after` has to be there."""
    await refused(record(envelope(op, after="text")), "not_a_change")


async def test_a_heartbeat_is_nothing() -> None:
    """It says that the connector lives."""
    assert Nothing(why="a heartbeat") == await decode(record({"ts_ms": 1}, key={"serverName": "app"}))


@pytest.mark.parametrize(
    "value",
    [{}, {"op": "c", "after": ROW}, ROW, {"op": "c", "source": "x"}, {"status": "BEGIN"}, {"before": None}],
)
async def test_what_is_no_change_is_refused(value: object) -> None:
    """A row that was unwrapped without its operation cannot be told from anything else."""
    assert "add.fields=op" in await refused(record(value), "not_a_change")


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    "key,expected",
    [
        ({"shop": 7, "number": "a"}, "7/a"),
        ({"shop": "7/a", "number": "b"}, "7%2Fa/b"),
        ({"shop": "7", "number": "a/b"}, "7/a%2Fb"),
        ({"shop": "7%2Fa", "number": "b"}, "7%252Fa/b"),
        ({"number": True, "shop": 1.5, "more": None}, "1.5/true"),
    ],
)
async def test_an_id_of_several_columns(key: object, expected: str) -> None:
    """They are joined in the mapping's order, and no two keys share an id."""
    assert expected == (await document(record(envelope(), key=key), id=["shop", "number"])).id


async def test_an_id_of_one_column_is_taken_as_it_is() -> None:
    """A number is written as a text; nothing is escaped."""
    assert "42" == (await document(record(envelope(), key={"id": 42}))).id
    assert "a/b%" == (await document(record(envelope(), key={"id": "a/b%"}))).id


@pytest.mark.parametrize("key", [{}, {"ID": "n1"}, {"id": None}, {"id": ""}])
async def test_a_key_without_the_id_is_refused(key: object) -> None:
    """The row is not asked instead: a deletion might not have it."""
    for op in ("c", "d"):
        await refused(record(envelope(op), key=key), "no_id")


@pytest.mark.parametrize("op", ["r", "c", "u", "d"])
async def test_a_record_without_a_key_is_refused(op: str) -> None:
    """A table without a primary key needs message.key.columns."""
    assert "message.key.columns" in await refused(_keyless(record(envelope(op))), "no_key")


async def test_a_moved_document_names_its_former_id() -> None:
    """The header is JSON text whatever the key is; the last of several counts."""
    headers = {"__debezium.oldkey": {"id": "n0"}}
    made = await document(record(envelope(), headers=headers))
    assert ("n1", "n0", False) == (made.id, made.former, made.body_kept)
    told = (("__debezium.oldkey", b"junk"), ("__debezium.oldkey", b'{"id":"n00"}'))
    assert "n00" == (await document(replace(record(envelope()), headers=told))).former


async def test_a_key_that_changes_beside_the_id_moves_nothing() -> None:
    """Its deletion is nothing: of the same version as the creation, it might remove what that one brings."""
    key = {"id": "n1", "part": 2}
    creation = record(envelope(), key, {"__debezium.oldkey": {"id": "n1", "part": 1}})
    deletion = record(envelope("d", before=ROW), {"id": "n1", "part": 1}, {"__debezium.newkey": key})
    assert (await document(creation)).former is None
    assert isinstance(await decode(deletion), Nothing)
    moved = record(envelope("d", before=ROW), headers={"__debezium.newkey": {"id": "n2"}})
    assert (await document(moved)).deleted


@pytest.mark.parametrize(
    "header,code",
    [
        (b"\xff", "undecodable"),
        (b"no json", "undecodable"),
        (b"x" * 70_000, "too_large"),
        ({"other": 1}, "no_id"),
        ({"id": None}, "no_id"),
    ],
)
async def test_an_unreadable_old_key_is_refused(header: object, code: str) -> None:
    """The text of the former document would be lost without a word."""
    told = record(envelope(), headers={"__debezium.oldkey": header})
    assert "__debezium.oldkey" in await refused(told, code)


# ------------------------------------------------------------------ versions


@pytest.mark.parametrize("lsn", [None, "77", 1.5, True, -1, 2**63, [], {}])
async def test_a_missing_lsn_is_refused(lsn: object) -> None:
    """What is no position in the log fences nothing; a column may hold the version instead."""
    told = await refused(record(envelope(source={"lsn": lsn})), "no_version")
    assert "source.lsn" in told
    assert "version" in told
    await refused(record(envelope("d", source={})), "no_version")
    await refused(record(envelope("t", source={})), "no_version")
    await refused(record({**ROW, "__op": "c", "__deleted": "false"}), "no_version")


@pytest.mark.parametrize(
    "told,version",
    [
        ("1970-01-01T00:00:00.000001Z", 1),
        ("2026-01-05T09:00:00.123456Z", 1_767_603_600_123_456),
        ("2026-01-05T10:00:00.123456+01:00", 1_767_603_600_123_456),
        ("2026-01-05 09:00:00+00", 1_767_603_600_000_000),
    ],
)
async def test_a_timestamp_is_a_version_in_microseconds(told: str, version: int) -> None:
    """No float stands between, so none is off by one."""
    assert version == (await document(record(envelope(after={**ROW, "updated_at": told})), **MOMENT)).version


@pytest.mark.parametrize(
    "told", [None, "", "soon", "2026-01-05T09:00:00", "1969-12-31T23:59:59Z", 5, True, [], "infinity", "2026-13-01"]
)
async def test_what_is_no_timestamp_is_no_version(told: object) -> None:
    """A time without its offset is none: it would go back when the clocks do."""
    await refused(record(envelope(after={**ROW, "updated_at": told})), "no_version", **MOMENT)


@pytest.mark.parametrize("told", [None, "3", 1.0, True, -1, 2**63 - 1, 2**80, []])
async def test_what_is_no_integer_is_no_version(told: object) -> None:
    """Nothing is rounded or cut to fit."""
    await refused(record(envelope(after={**ROW, "revision": told})), "no_version", **REVISION)


async def test_a_column_makes_the_lsn_needless() -> None:
    """Sources without one can be followed."""
    assert 3 == (await document(record(envelope(source={})), **REVISION)).version


async def test_a_deletion_is_one_newer_than_what_it_deletes() -> None:
    """So it wins over the state it ends, and a repeat of that state does not bring it back."""
    assert 4 == (await document(record(envelope("d", before=ROW)), **REVISION)).version
    row = {**ROW, "revision": 2**63 - 2}
    assert 2**63 - 1 == (await document(record(envelope("d", before=row)), **REVISION)).version


@pytest.mark.parametrize("before", [None, {"id": "n1"}, {**dict.fromkeys(ROW), "id": "n1"}])
async def test_a_deletion_that_tells_no_version_is_refused(before: object) -> None:
    """The lsn does not compare with a column; the cure is the table's replica identity."""
    told = await refused(record(envelope("d", before=before)), "no_version", **REVISION)
    assert "REPLICA IDENTITY FULL" in told


async def test_a_truncation_has_no_version_of_a_column() -> None:
    """It tells no row at all."""
    assert "rebuild" in await refused(record(envelope("t")), "no_version", **REVISION)


# ------------------------------------------------------------------ values that are not told


@pytest.mark.parametrize("op", ["r", "c", "u"])
async def test_a_body_that_is_not_told_is_kept(op: str) -> None:
    """With default identity the placeholder always stands for an unchanged value."""
    made = await document(record(envelope(op, after={**ROW, "body": PLACEHOLDER})))
    assert (True, "", "Hours") == (made.body_kept, made.body, made.title)


@pytest.mark.parametrize("name", ["tenant", "title", "lang"])
async def test_any_other_value_that_is_not_told_is_refused(name: str) -> None:
    """A document cannot be made without it, and the placeholder is no value."""
    told = await refused(record(envelope("u", after={**ROW, name: PLACEHOLDER})), "unavailable_value")
    assert "REPLICA IDENTITY FULL" in told


async def test_a_body_of_which_a_part_is_not_told_is_refused() -> None:
    """Whether the told part has changed is not known, so neither text nor `body_kept` would be right."""
    row = {**ROW, "summary": "In short."}
    both = {"body": ["summary", "body"]}
    assert "In short.\n\nWe open at nine." == (await document(record(envelope(after=row)), **both)).body
    await refused(record(envelope("u", after={**row, "body": PLACEHOLDER})), "unavailable_value", **both)
    await refused(
        record(envelope("u", after={**row, "summary": None, "body": PLACEHOLDER})), "unavailable_value", **both
    )
    none = {**row, "summary": PLACEHOLDER, "body": PLACEHOLDER}
    assert (await document(record(envelope("u", after=none)), **both)).body_kept


@pytest.mark.parametrize(
    "op,before,headers,own",
    [
        ("r", None, {}, True),
        ("c", None, {}, True),
        ("u", ROW, {}, True),
        ("u", {"id": "n1", "tenant": None, "body": "x"}, {}, True),
        ("u", None, {}, False),
        ("u", {}, {}, False),
        ("u", {**dict.fromkeys(ROW), "id": "n1"}, {}, False),
        ("u", {**ROW, "body": None}, {}, False),
        ("u", {**ROW, "body": PLACEHOLDER}, {}, True),
        ("c", None, {"__debezium.oldkey": {"id": "n0"}}, False),
        ("c", None, {"__debezium.oldkey": {"id": "n1"}}, False),
    ],
)
async def test_with_full_identity_the_placeholder_may_be_a_users_text(
    op: str, before: object, headers: dict[str, object], own: bool
) -> None:
    """It is taken for one only where the change itself shows that nothing was left out."""
    given = record(envelope(op, after={**ROW, "body": PLACEHOLDER}, before=before), headers=headers)
    made = await document(given, **FULL)
    assert (PLACEHOLDER if own else "", not own) == (made.body, made.body_kept)


async def test_the_placeholder_may_be_another_text() -> None:
    """Then Debezium's own is a text like any other."""
    row = {**ROW, "body": "?!?", "title": PLACEHOLDER}
    made = await document(record(envelope("u", after=row)), placeholder="?!?")
    assert (True, PLACEHOLDER) == (made.body_kept, made.title)


async def test_a_text_that_holds_the_placeholder_is_a_text() -> None:
    """Only a whole value can be left out."""
    row = {**ROW, "body": f"See {PLACEHOLDER}."}
    assert f"See {PLACEHOLDER}." == (await document(record(envelope("u", after=row)))).body


# ------------------------------------------------------------------ deletions


@pytest.mark.parametrize(
    "before,tenant",
    [
        (ROW, "acme"),
        (None, ""),
        ({"id": "n1", "tenant": None}, ""),
        ({"id": "n1"}, ""),
        ({"id": "n1", "tenant": 5}, "5"),
        ({"id": "n1", "tenant": [1]}, ""),
        ({"id": "n1", "tenant": "\ud800"}, ""),
        ({"id": "n1", "tenant": PLACEHOLDER}, ""),
    ],
)
async def test_a_deletion_needs_no_more_than_the_key(before: object, tenant: str) -> None:
    """Whose it was is told where the row is; nothing that is wrong with the row keeps the document alive."""
    made = await document(record(envelope("d", before=before)))
    assert ("n1", tenant, True, 77) == (made.id, made.tenant, made.deleted, made.version)
    assert ("", "", {}) == (made.title, made.body, made.fields)


async def test_a_constant_tenant_is_that_of_deletions_too() -> None:
    """No column is asked for it."""
    acme = {"tenant": {"constant": "acme"}}
    row = {name: value for name, value in ROW.items() if name != "tenant"}
    assert "acme" == (await document(record(envelope(after=row)), **acme)).tenant
    assert "acme" == (await document(record(envelope("d")), **acme)).tenant


# ------------------------------------------------------------------ unwrapped rows


def _unwrapped(**more: Any) -> dict[str, Any]:
    return {**ROW, "__source_lsn": 78, "__source_ts_ms": 9, **more}


@pytest.mark.parametrize(
    "value,headers,deleted",
    [
        (_unwrapped(__op="c", __deleted="false"), {}, False),
        (_unwrapped(__deleted="false"), {}, False),
        (_unwrapped(__op="u"), {}, False),
        (_unwrapped(), {"__op": b"r"}, False),
        (_unwrapped(__op="d", __deleted="true"), {}, True),
        (_unwrapped(__deleted=True), {}, True),
        (_unwrapped(__op="d"), {}, True),
        (_unwrapped(), {"__op": b"d"}, True),
    ],
)
async def test_an_unwrapped_row(value: object, headers: dict[str, object], deleted: bool) -> None:
    """Its operation is in the row or in a header; a deletion may be told by `__deleted` alone."""
    made = await document(record(value, headers=headers))
    assert (deleted, 78, 9, "acme") == (made.deleted, made.version, made.committed_at_ms, made.tenant)


async def test_an_unwrapped_row_may_have_columns_named_as_an_envelopes() -> None:
    """`op` and `source` are a table's columns where the row is marked as one."""
    made = await document(record(_unwrapped(op="buy", source="web", __op="c"), headers={"__op": b"c"}))
    assert "n1" == made.id


async def test_a_tombstone_is_nothing_unless_it_is_the_deletion_itself() -> None:
    """Without its row an unwrapped deletion has no version: the transformation has to keep the row."""
    assert isinstance(await decode(record(None)), Nothing)
    assert "rewrite" in await refused(record(None, headers={"__op": b"d"}), "no_version")

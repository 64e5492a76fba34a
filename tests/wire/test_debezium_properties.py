"""The decoder of change records, on whatever hypothesis makes up: it decodes, or refuses, and never anything else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import Reject
from pipeline.core.payloads import Document, Nothing, Payload
from pipeline.core.record import Record
from pipeline.core.tables import PLACEHOLDER
from pipeline.wire.debezium import ChangeDecoder
from tests.wire.captured import AvroShelf, captured
from tests.wire.changes import FULL, MOMENT, REVISION, TOPIC, tables

COLUMNS = ("id", "tenant", "title", "body", "lang", "revision", "updated_at")
NAMES: tuple[str, ...] = (
    *COLUMNS,
    "op",
    "before",
    "after",
    "source",
    "lsn",
    "ts_ms",
    "schema",
    "payload",
    "type",
    "fields",
    "field",
)
NAMES += ("__op", "__deleted", "__source_lsn", "status", "event_count")

WORDS = st.sampled_from(["r", "c", "u", "d", "t", "m", "n1", "bytes", "struct", "after", "true", PLACEHOLDER, "\ud800"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
ANY = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
CELLS = LEAVES | st.just("2026-01-05T09:00:00Z") | st.lists(LEAVES, max_size=1)
ROWS = st.none() | st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=8)
WHOLE = st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELLS))
ENVELOPES = st.fixed_dictionaries(
    {
        "op": st.sampled_from("rcudtmx"),
        "before": ROWS | WHOLE,
        "after": ROWS | WHOLE,
        "source": st.fixed_dictionaries(
            {"lsn": st.integers(-1, 2**64) | st.none(), "ts_ms": st.integers() | st.none()}
        ),
    }
)
UNWRAPPED = st.builds(
    lambda row, op, lsn: {**row, "__op": op, "__source_lsn": lsn}, WHOLE, st.sampled_from("rcudt"), st.integers(0, 9)
)
VALUES = ANY | ENVELOPES | UNWRAPPED
KEYS = st.fixed_dictionaries({"id": CELLS}) | ANY
DECODERS = [ChangeDecoder(tables(**changes)) for changes in ({}, FULL, REVISION, MOMENT, {"body": ["title", "body"]})]


def _bytes(value: object) -> bytes:
    return json.dumps(value).encode()


RAW = st.none() | st.binary(max_size=40)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["__debezium.oldkey", "__debezium.newkey", "__op", "other"]),
        RAW | KEYS.map(_bytes) | st.just(b"d"),
    ),
    max_size=3,
).map(tuple)
RECORDS = st.builds(
    lambda key, value, headers: Record(TOPIC, 0, 0, key, value, headers),
    RAW | KEYS.map(_bytes),
    RAW | VALUES.map(_bytes),
    HEADERS,
)


async def outcome(decoder: ChangeDecoder, record: Record) -> Payload | str:
    """Decode a record, or say why it is refused; anything else that is raised fails the test."""
    try:
        return await decoder.decode(record, TOPIC)
    except Reject as error:
        return f"{error.code}: {error.reason}"


@given(RECORDS)
async def test_every_record_is_a_document_or_nothing_or_refused(record: Record) -> None:
    """Whatever its bytes are; and a second reading of them gives the same."""
    for decoder in DECODERS:
        first = await outcome(decoder, record)
        assert first == await outcome(decoder, record)
        assert isinstance(first, Document | Nothing | str)


@given(RECORDS)
async def test_a_document_has_what_the_index_needs(record: Record) -> None:
    """An id and a tenant (a deletion need not tell that), a version that fits, and text that can be written."""
    for decoder in DECODERS:
        made = await outcome(decoder, record)
        if isinstance(made, Document):
            assert made.emptied or made.id
            assert made.deleted or made.tenant
            assert 0 <= made.version < 2**63
            assert not (made.body_kept and made.body)
            made.model_dump_json().encode()


@given(VALUES, KEYS, HEADERS)
async def test_the_placeholder_is_never_in_a_document(value: Any, key: Any, headers: Any) -> None:
    """Of a table with default identity, whatever the change; its id may be anything a key holds."""
    made = await outcome(DECODERS[0], Record(TOPIC, 0, 0, _bytes(key), _bytes(value), headers))
    if isinstance(made, Document):
        told = (made.tenant, made.title, made.body, *made.fields.values())
        assert not any(PLACEHOLDER in text for text in told)


@given(ROWS | WHOLE)
async def test_an_update_without_the_row_before_never_brings_the_placeholder(after: Any) -> None:
    """Also of a table that is said to have full identity: the mapping may be wrong, or older than the table."""
    value = {"op": "u", "before": None, "after": after, "source": {"lsn": 1}}
    made = await outcome(DECODERS[1], Record(TOPIC, 0, 0, b'{"id":"n1"}', _bytes(value)))
    if isinstance(made, Document):
        assert PLACEHOLDER not in (made.tenant, made.title, made.body, *made.fields.values())


AVRO_DECODER = ChangeDecoder(tables(), AvroShelf())
AVRO = [record for record in captured("21-avro.jsonl") if record.value and len(record.value) < 1_000]


@given(st.sampled_from(AVRO), st.data())
async def test_avro_with_a_changed_byte_is_decoded_or_refused(record: Record, data: st.DataObject) -> None:
    """Any byte of key or value, cut or replaced."""
    value, key = record.value or b"", record.key or b"\x00"
    at, by = data.draw(st.integers(0, len(value) - 1)), data.draw(st.binary(max_size=2))
    spot = data.draw(st.integers(0, len(key) - 1))
    for changed in (
        Record(TOPIC, 0, 0, record.key, value[:at] + by + value[at + 1 :]),
        Record(TOPIC, 0, 0, key[:spot] + by + key[spot + 1 :], value),
    ):
        assert isinstance(await outcome(AVRO_DECODER, changed), Document | Nothing | str)

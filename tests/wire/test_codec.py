"""The Avro codec: both framings, versions, and the bad input that records bring."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ConfigDict, field_validator

from pipeline.core.errors import Defer, Reject
from pipeline.core.payloads import Document, Payload, Request, Result
from pipeline.core.ports import Codec
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas
from tests.contracts.codec_contract import CodecContract, undecodable
from tests.schemas.examples import FULL, NOUNS, SCHEMAS
from tests.wire.strategies import payloads

T = TypeVar("T")
REQUESTS = SCHEMAS.newest("requests").schema


class Shelf:
    """A registry without a network: schemas under ids 1, 2, ..."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked = 0

    async def schema(self, schema_id: int) -> str:
        self.asked += 1
        return self.texts[schema_id - 1]

    async def id_of(self, noun: str, schema: str) -> int:
        self.asked += 1
        if schema not in self.texts:
            self.texts.append(schema)
        return self.texts.index(schema) + 1

    async def check(self) -> None:
        """Its ids mean what they did."""


class Away:
    """A registry that is away."""

    async def schema(self, schema_id: int) -> str:
        raise Defer("the registry is away", until=7.0)

    async def id_of(self, noun: str, schema: str) -> int:
        raise Defer("the registry is away", until=7.0)

    async def check(self) -> None:
        raise Defer("the registry is away", until=7.0)


class TestSingleObjectEncoding(CodecContract):
    """The contract, without a registry."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Codec]:
        """Open a codec that needs nothing."""
        yield AvroCodec(SCHEMAS)


class TestConfluentFraming(CodecContract):
    """The contract, with a registry."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Codec]:
        """Open a codec and the registry that it asks."""
        yield AvroCodec(SCHEMAS, Shelf())


# ------------------------------------------------------------------ framing


async def test_without_a_registry_it_writes_single_object_encoding() -> None:
    """C3 01, the fingerprint, the record."""
    value = await AvroCodec(SCHEMAS).encode("requests", FULL["requests"])
    assert value[:10] == b"\xc3\x01" + REQUESTS.fingerprint


async def test_with_a_registry_it_writes_confluents_framing() -> None:
    """00, the id in four bytes, the same record."""
    plain = await AvroCodec(SCHEMAS).encode("requests", FULL["requests"])
    value = await AvroCodec(SCHEMAS, Shelf(*["{}"] * 258)).encode("requests", FULL["requests"])
    assert value[:5] == b"\x00\x00\x00\x01\x03"
    assert value[5:] == plain[10:]


async def test_it_reads_both_framings_whatever_it_writes() -> None:
    """A topic may hold both, as when a registry was introduced."""
    shelf = Shelf()
    plain, registered = AvroCodec(SCHEMAS), AvroCodec(SCHEMAS, shelf)
    for value in (await plain.encode("results", FULL["results"]), await registered.encode("results", FULL["results"])):
        assert await registered.decode("results", Result, value) == FULL["results"]


async def test_a_schema_is_asked_for_once() -> None:
    """Ids are remembered for ever, for reading and for writing."""
    shelf = Shelf()
    codec = AvroCodec(SCHEMAS, shelf)
    for _ in range(3):
        value = await codec.encode("results", FULL["results"])
        await codec.decode("results", Result, value)
    assert shelf.asked == 2


async def test_a_prepared_codec_writes_while_the_registry_is_away() -> None:
    """What was paid for can be written: `prepare` asks before work is taken."""
    shelf = Shelf()
    codec = AvroCodec(SCHEMAS, shelf)
    await codec.prepare(["results"])
    shelf.asked = 0
    await codec.encode("results", FULL["results"])
    assert shelf.asked == 0


async def test_a_registry_that_is_away_defers() -> None:
    """It is no fault of the record: it waits."""
    codec = AvroCodec(SCHEMAS, Away())
    for work in (
        codec.prepare(["results"]),
        codec.encode("results", FULL["results"]),
        codec.decode("results", Result, b"\0\0\0\0\1\0"),
    ):
        with pytest.raises(Defer):
            await work


# ------------------------------------------------------------------ schemas that are not ours


async def test_an_unknown_fingerprint_is_named() -> None:
    """As a number, in the way that schema tools print it."""
    rejection = await undecodable(AvroCodec(SCHEMAS), b"\xc3\x01" + bytes(range(8)) + b"\0")
    assert rejection.code == "unknown_schema"
    assert "no schema here has its fingerprint 0706050403020100" in rejection.reason


async def test_an_id_is_of_no_use_without_a_registry() -> None:
    """The reason names the id and the variable to set."""
    rejection = await undecodable(AvroCodec(SCHEMAS), b"\x00\x00\x00\x01\x02abc")
    assert rejection.code == "unknown_schema"
    assert "id 258 of a schema registry and none is configured: set SCHEMA_REGISTRY_URL" in rejection.reason


async def test_an_id_that_no_registry_can_have_is_not_asked_for() -> None:
    """Ids have 31 bits; zeros and other junk before a record do not make it wait for a registry."""
    rejection = await undecodable(AvroCodec(SCHEMAS, Away()), b"\x00\x80\x00\x00\x00\x00")
    assert rejection.reason.endswith("no registry has a schema of id 2147483648")


async def test_a_record_that_is_none_of_ours_is_named() -> None:
    """A schema that the registry knows and no topic here carries."""
    other = '{"type": "record", "name": "a.Order", "fields": [{"name": "f", "type": "long"}]}'
    rejection = await undecodable(AvroCodec(SCHEMAS, Shelf(other)), b"\0\0\0\0\1\0")
    assert rejection.reason.endswith("it is a record named a.Order, which no topic here carries")


def request_of(field: str) -> str:
    """A registered schema of one field."""
    return f'{{"type": "record", "name": "pipeline.events.Request", "fields": [{{"name": "f", "type": {field}}}]}}'


@pytest.mark.parametrize(
    "text, why",
    [
        ("no JSON", "is not an Avro schema"),
        (request_of('{"type": "array", "items": "null"}'), "has a null outside of a union"),
        (request_of('["null", "Request"]'), "has the type pipeline.events.Request inside itself"),
    ],
)
async def test_a_registered_schema_that_cannot_be_used_is_refused_once_and_for_all(text: str, why: str) -> None:
    """Bombs in a schema are refused before a byte is read by it; the registry is not asked again."""
    shelf = Shelf(text)
    codec = AvroCodec(SCHEMAS, shelf)
    for _ in range(2):
        rejection = await undecodable(codec, b"\0\0\0\0\1" + b"\x80\x80\x80\x40" * 2)
        assert f"its schema, id 1 of the registry, {why}" in rejection.reason
    assert shelf.asked == 1


async def test_a_record_of_a_version_to_come_is_read_as_the_newest_that_is_known() -> None:
    """A newer writer's added field is skipped; the work of skipping is bounded as that of reading is."""
    newer = json.loads(REQUESTS.text)
    newer["fields"].insert(0, {"name": "more", "type": {"type": "array", "items": "string"}, "default": []})
    codec = AvroCodec(SCHEMAS, Shelf(json.dumps(newer)))
    body = (await AvroCodec(SCHEMAS).encode("requests", FULL["requests"]))[10:]
    value = b"\0\0\0\0\1" + b"\x04\x02a\x02b\x00" + body
    assert await codec.decode("requests", Request, value) == FULL["requests"]
    assert "ends before" in (await undecodable(codec, b"\0\0\0\0\1" + b"\x80\x80\x80\x40" + body)).reason


async def test_a_record_of_an_old_version_is_read_as_the_newest(tmp_path: Path) -> None:
    """Added fields take their defaults; the old version's fingerprint is known for ever."""
    old = json.loads(REQUESTS.text)
    old["fields"] = [field for field in old["fields"] if field["name"] not in ("lane", "metadata")]
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "v1.avsc").write_text(json.dumps(old))
    written = Request(type="t", input="i", key="k")
    schema = load_schemas(tmp_path).newest("requests").schema
    body = b"\x02t\x02i\x00\x00\x02\x02k\x00\x00\x00\x00\x00"
    (tmp_path / "requests" / "v2.avsc").write_text(REQUESTS.text)
    codec = AvroCodec(load_schemas(tmp_path))
    assert await codec.decode("requests", Request, b"\xc3\x01" + schema.fingerprint + body) == written


# ------------------------------------------------------------------ payloads that are strict


class Strict(Document):
    """A payload that refuses numbers which are none, and whose own check fails in an unforeseen way."""

    model_config = ConfigDict(allow_inf_nan=False)
    version: float  # type: ignore[assignment]  # to be refused

    @field_validator("title")
    @classmethod
    def fail(cls, value: str) -> str:
        """Fail as no check should."""
        if value == "boom":
            raise RuntimeError(value)
        return value


TYPES = {
    "source": "string",
    "id": "string",
    "tenant": "string",
    "title": "string",
    "body": "string",
    "version": "double",
}
FIELDS = [{"name": name, "type": type_} for name, type_ in TYPES.items()]
DOCUMENT = json.dumps({"type": "record", "name": "pipeline.events.Document", "fields": FIELDS})


async def strict(tmp_path: Path, title: bytes, version: bytes) -> str:
    """Why a document of this title and this version, eight bytes, is rejected."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "v1.avsc").write_text(DOCUMENT)
    codec = AvroCodec(load_schemas(tmp_path), Shelf(DOCUMENT))
    value = b"\0\0\0\0\1" + b"\0\0\0" + bytes([2 * len(title)]) + title + b"\0" + version
    with pytest.raises(Reject) as caught:
        await codec.decode("documents", Strict, value)
    return caught.value.reason


@pytest.mark.parametrize("number", [b"\0\0\0\0\0\0\xf0\x7f", b"\0\0\0\0\0\0\xf8\x7f"], ids=["infinity", "not a number"])
async def test_a_number_that_is_none_is_rejected_where_the_payload_refuses_it(tmp_path: Path, number: bytes) -> None:
    """Avro knows infinities and NaN; the payload model decides."""
    assert "its field version is not valid: Input should be a finite number" in await strict(tmp_path, b"", number)


async def test_any_error_of_a_payloads_own_check_is_a_reject(tmp_path: Path) -> None:
    """The reason gives its type and not its text, which may quote the value."""
    reason = await strict(tmp_path, b"boom", b"\0" * 8)
    assert reason == "cannot decode the value as documents: checking it raised RuntimeError"


# ------------------------------------------------------------------ properties


def at_once(coroutine: Coroutine[object, object, T]) -> T:
    """The result of a coroutine that never waits, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    pytest.fail("it waits")


def test_nothing_waits_with_a_warm_cache() -> None:
    """Encoding and decoding are async for the registry's sake alone: without a question to it, they never yield."""
    codec = AvroCodec(SCHEMAS)
    assert (
        at_once(codec.decode("results", Result, at_once(codec.encode("results", FULL["results"])))) == FULL["results"]
    )


@given(drawn=payloads(), registered=st.booleans())
def test_every_payload_comes_back_as_it_was(drawn: tuple[str, Payload], registered: bool) -> None:
    """Encode, then decode, is the identity: for every model, in both framings."""
    noun, payload = drawn
    codec = AvroCodec(SCHEMAS, Shelf() if registered else None)
    assert at_once(codec.decode(noun, type(payload), at_once(codec.encode(noun, payload)))) == payload


def ends(noun: str, value: bytes) -> None:
    """Decoding ends in a payload or in a Reject, and in nothing else."""
    shelf = Shelf(*(version.schema.text for each in SCHEMAS.nouns for version in SCHEMAS.versions(each)))
    if value[:1] == b"\0" and not 1 <= int.from_bytes(value[1:5], "big") <= len(shelf.texts):
        value = b"\0\0\0\0\1" + value[5:]
    with suppress(Reject):
        payload = at_once(AvroCodec(SCHEMAS, shelf).decode(noun, NOUNS[noun], value))
        assert isinstance(payload, NOUNS[noun])


HEADS = [b"", b"\xc3\x01", b"\0", *(b"\xc3\x01" + SCHEMAS.newest(noun).schema.fingerprint for noun in NOUNS)]


@given(noun=st.sampled_from(sorted(NOUNS)), head=st.sampled_from(HEADS), body=st.binary(max_size=200))
@example(noun="contexts", head=HEADS[3], body=b"\x80\x80\x80\x40" * 2)
def test_random_bytes_end_in_a_payload_or_a_reject(noun: str, head: bytes, body: bytes) -> None:
    """Whatever follows whichever frame."""
    ends(noun, head + body)


@given(
    drawn=payloads(),
    edits=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.binary(max_size=5)), min_size=1, max_size=4),
)
def test_damaged_records_end_in_a_payload_or_a_reject(
    drawn: tuple[str, Payload], edits: list[tuple[int, int, bytes]]
) -> None:
    """Valid records with bytes replaced, inserted and removed."""
    noun, payload = drawn
    value = at_once(AvroCodec(SCHEMAS).encode(noun, payload))
    for place, cut, put in edits:
        at = place % (len(value) + 1)
        value = value[:at] + put + value[at + cut :]
    ends(noun, value)

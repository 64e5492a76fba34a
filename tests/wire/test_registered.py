"""The schemas that records in Confluent's wire format name."""

from __future__ import annotations

import pytest

from pipeline.wire.registered import Registered, Unwritten

GOOD = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}'


class _Shelf:
    """Schemas under ids 1, 2, ..."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked = 0

    async def schema(self, schema_id: int) -> str:
        self.asked += 1
        return self.texts[schema_id - 1]

    async def id_of(self, noun: str, schema: str) -> int:
        raise AssertionError("nothing is written")

    async def check(self) -> None:
        """Its ids mean what they did."""


async def test_an_id_is_asked_for_once() -> None:
    """An id never changes its schema, be it good or bad."""
    shelf = _Shelf(GOOD, "no schema")
    registered = Registered(shelf)
    first = await registered.writer_of(b"\x00\x00\x00\x00\x01rest")
    assert first is await registered.writer_of(b"\x00\x00\x00\x00\x01other")
    for _ in range(2):
        with pytest.raises(Unwritten, match="its schema, id 2 of the registry, is not an Avro schema") as caught:
            await registered.writer_of(b"\x00\x00\x00\x00\x02")
        assert "unknown_schema" == caught.value.code
    assert ("R", 2) == (first.name, shelf.asked)


@pytest.mark.parametrize(
    "value,why,code",
    [
        (b"\x00", "it ends within its schema registry frame", "undecodable"),
        (b"\x00\x00\x00\x01", "it ends within its schema registry frame", "undecodable"),
        (b"\x00\x80\x00\x00\x00", "no registry has a schema of id 2147483648", "unknown_schema"),
        (b"\x00\x00\x00\x00\x01", "none is configured: set SCHEMA_REGISTRY_URL", "unknown_schema"),
    ],
)
async def test_what_names_no_schema_is_told(value: bytes, why: str, code: str) -> None:
    """A frame that is cut, an id that cannot be, and ids without a registry."""
    with pytest.raises(Unwritten, match=why) as caught:
        await Registered(None).writer_of(value)
    assert code == caught.value.code

"""Which version a value was written with, by its frame."""

from __future__ import annotations

import pytest

from pipeline.wire.codec import AvroCodec
from pipeline.wire.versions import ValueVersions
from tests.schemas.examples import FULL, SCHEMAS
from tests.wire.test_codec import Away, Shelf


async def test_ours_are_named() -> None:
    """By the fingerprint of single-object encoding, the newest version and older ones; the second time at once."""
    versions = ValueVersions(SCHEMAS)
    newest = SCHEMAS.newest("requests")
    value = await AvroCodec(SCHEMAS).encode("requests", FULL["requests"])
    old = b"\xc3\x01" + SCHEMAS.versions("requests")[0].schema.fingerprint
    assert versions.at_once(value) is None
    assert f"requests/v{newest.number}" == await versions.of(value) == versions.at_once(value)
    assert "requests/v1" == await versions.of(old)


async def test_a_registrys_ids_are_looked_up() -> None:
    """An id of one of our schemas is named as such, another's by its own name; each is asked for once."""
    row = '{"type": "record", "name": "app.Row", "fields": [{"name": "a", "type": "int"}]}'
    shelf = Shelf(SCHEMAS.newest("prompts").schema.text, row)
    versions = ValueVersions(SCHEMAS, shelf)
    assert f"prompts/v{SCHEMAS.newest('prompts').number}" == await versions.of(b"\x00\x00\x00\x00\x01abc")
    assert "app.Row (id 2)" == await versions.of(b"\x00\x00\x00\x00\x02abc")
    assert "app.Row (id 2)" == await versions.of(b"\x00\x00\x00\x00\x02xyz")
    assert shelf.asked == 2


@pytest.mark.parametrize("registry", [None, Away()])
async def test_without_a_registry_the_id_is_told(registry: Away | None) -> None:
    """None configured, or one that is away: the frame still says something."""
    assert "id 7" == await ValueVersions(SCHEMAS, registry).of(b"\x00\x00\x00\x00\x07")


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, "none"),
        (b"", "unframed"),
        (b'{"a": 1}', "unframed"),
        (b"\xc3\x01\x02", "unframed"),
        (b"\x00\x01", "unframed"),
        (b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08", "unknown 0x0807060504030201"),
    ],
)
async def test_whatever_it_is_it_has_a_name(value: bytes | None, expected: str) -> None:
    """Null, empty, not framed, cut short, and by a schema that is not here."""
    versions = ValueVersions(SCHEMAS)
    assert expected == await versions.of(value) == await versions.of(value)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are a sender's: beyond some they are looked up each time, and told all the same."""
    monkeypatch.setattr("pipeline.wire.versions._MOST", 0)
    versions, value = ValueVersions(SCHEMAS), b"\xc3\x01" + SCHEMAS.versions("requests")[0].schema.fingerprint
    assert "requests/v1" == await versions.of(value) == await versions.of(value)
    assert None is versions.at_once(value)

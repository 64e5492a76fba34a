"""Old events are read for ever: every golden event of every version still decodes to what it meant."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

from pipeline.wire.codec import AvroCodec
from pipeline.wire.compat import check_schemas
from pipeline.wire.schemas import load_schemas
from tests.schemas import golden
from tests.schemas.examples import DIRECTORY, NOUNS, SCHEMAS
from tests.schemas.golden import FOLDER, Golden, OneSchema, golden_events

EVENTS = list(golden_events())


def name(event: Golden) -> str:
    return str(event.expected.relative_to(FOLDER))


@pytest.mark.parametrize("event", EVENTS, ids=name)
async def test_a_golden_event_in_single_object_encoding_decodes_to_its_json(event: Golden) -> None:
    """A record written by any version reads as today's payload, with today's defaults for what it lacks."""
    noun = event.version.noun
    expected = NOUNS[noun].model_validate_json(event.expected.read_bytes())
    assert await AvroCodec(SCHEMAS).decode(noun, NOUNS[noun], event.single_object.read_bytes()) == expected


@pytest.mark.parametrize("event", EVENTS, ids=name)
async def test_a_golden_event_in_confluent_framing_decodes_to_its_json(event: Golden) -> None:
    """The same holds for a record that names a schema id, once the registry has told the schema."""
    noun = event.version.noun
    codec = AvroCodec(SCHEMAS, OneSchema(event.version.schema.text))
    expected = NOUNS[noun].model_validate_json(event.expected.read_bytes())
    assert await codec.decode(noun, NOUNS[noun], event.confluent.read_bytes()) == expected


@pytest.mark.parametrize("event", EVENTS, ids=name)
def test_apache_avro_reads_a_golden_event_as_we_do(event: Golden) -> None:
    """Frame and body are what the specification says, by the word of an implementation that shares no code with us."""
    schema = avro.schema.parse(event.version.schema.text)
    value = event.single_object.read_bytes()
    assert value[:10] == b"\xc3\x01" + schema.fingerprint("CRC-64-AVRO")
    reader = avro.io.DatumReader(schema)
    read: Any = reader.read(avro.io.BinaryDecoder(io.BytesIO(value[10:])))
    assert read == json.loads(event.expected.read_text("utf-8"))


def test_all_versions_read_each_other() -> None:
    """Our own schemas are FULL_TRANSITIVE-compatible."""
    assert check_schemas(DIRECTORY) == []


def test_no_golden_event_is_without_its_version() -> None:
    """Every file under golden/ belongs to a version that still exists: none was deleted, none is a stray."""
    expected = {path for event in EVENTS for path in event[1:]}
    assert set(FOLDER.glob("*/*")) == expected


def test_golden_events_are_made_for_a_new_version_only(tmp_path: Path) -> None:
    """Making them fills in what is missing, and refuses to touch what exists."""
    schemas = load_schemas(DIRECTORY)
    assert golden.missing(schemas, tmp_path) == list(schemas.nouns)
    assert len(golden.make(["results"], schemas, tmp_path)) == 6
    assert "results" not in golden.missing(schemas, tmp_path)
    with pytest.raises(FileExistsError):
        golden.make(["results"], schemas, tmp_path)


def test_the_golden_command_names_the_file_that_it_will_not_overwrite(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for a version that has its golden events, it says so and fails; asked for nothing, nothing is missing."""
    assert golden.main(["results"]) == 1
    assert "v1-full.avro stands for records" in capsys.readouterr().err
    assert golden.main([]) == 0

"""Loading a directory of schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.wire.schemas import load_schemas


def put(folder: Path, file: str, name: str = "Result", **fields: str) -> Path:
    """Write a record schema of these fields and types into `folder`."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"name": field, "type": type_} for field, type_ in fields.items()]
    path.write_text(json.dumps({"type": "record", "name": name, "namespace": "n", "fields": listed}))
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_schemas(folder)
    return str(caught.value)


def test_all_versions_of_all_nouns_are_loaded(tmp_path: Path) -> None:
    """Versions are in the order of their numbers, and the highest is the newest."""
    for number in range(1, 12):
        put(tmp_path, f"results/v{number}.avsc", **{f"f{number}": "long"})
    put(tmp_path, "failures/v1.avsc", "Failure", f="string")
    put(tmp_path, "golden/results/v9.avsc", f="string")
    (tmp_path / "README").touch()
    schemas = load_schemas(tmp_path)
    assert schemas.nouns == ("failures", "results")
    assert [version.number for version in schemas.versions("results")] == list(range(1, 12))
    newest = schemas.newest("results")
    assert (newest.noun, newest.number, newest.path) == ("results", 11, tmp_path / "results/v11.avsc")
    assert schemas.by_fingerprint(newest.schema.fingerprint) is newest
    assert schemas.by_fingerprint(b"12345678") is None
    assert (schemas.noun_of("n.Result"), schemas.noun_of("n.Other")) == ("results", None)


def test_an_unknown_noun_is_named_with_its_cure(tmp_path: Path) -> None:
    """A topic without a schema is a mistake of configuration, not of a record."""
    with pytest.raises(ConfigurationError, match=r"no schema for tokens: add tokens/v1\.avsc"):
        load_schemas(tmp_path).newest("tokens")
    with pytest.raises(ConfigurationError, match="no schema for tokens"):
        load_schemas(tmp_path).versions("tokens")


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A wrong path says so."""
    assert (
        refusal(tmp_path / "nowhere") == f"cannot read the schemas in {tmp_path / 'nowhere'}: No such file or directory"
    )


def test_a_gap_between_versions_is_refused(tmp_path: Path) -> None:
    """An old version may not go away: its records lie in topics."""
    put(tmp_path, "results/v1.avsc", f="long")
    put(tmp_path, "results/v3.avsc", f="long")
    assert refusal(tmp_path).endswith("results must hold v1.avsc, v2.avsc and so on without a gap, and has v1, v3")


def test_a_noun_without_versions_is_refused(tmp_path: Path) -> None:
    """An empty folder is a forgotten file."""
    (tmp_path / "results").mkdir()
    assert refusal(tmp_path).endswith("and has none")


@pytest.mark.parametrize("file", ["v0.avsc", "v01.avsc", "1.avsc", "v1.1.avsc", "result.avsc"])
def test_a_file_with_another_name_is_refused(tmp_path: Path, file: str) -> None:
    """A misnamed schema would be overlooked in silence."""
    path = put(tmp_path, f"results/{file}", f="long")
    assert refusal(tmp_path) == f"{path}: name it v<number>.avsc"


def test_a_broken_schema_is_refused_with_its_file(tmp_path: Path) -> None:
    """The error names the file and says what is wrong in it."""
    path = put(tmp_path, "results/v1.avsc", f="strange")
    assert refusal(tmp_path).startswith(f"{path} is not an Avro schema")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Schemas are UTF-8."""
    path = put(tmp_path, "results/v1.avsc", f="long")
    path.write_bytes(b"\xff\xff")
    assert refusal(tmp_path).startswith(f"cannot read {path}: ")


def test_two_nouns_may_not_carry_the_same_record(tmp_path: Path) -> None:
    """A record's name tells its noun; a copied file that kept its name would let results pass as failures."""
    put(tmp_path, "failures/v1.avsc", "Result", f="long")
    path = put(tmp_path, "results/v1.avsc", "Result", f="long")
    assert refusal(tmp_path) == (
        f"{path} describes the record n.Result, which is that of failures: give it its own name"
    )

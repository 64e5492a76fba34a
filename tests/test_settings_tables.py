"""The file that maps tables to documents, and the example that the program brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Document
from pipeline.core.tables import PLACEHOLDER
from pipeline.resources import resource
from pipeline.settings_tables import load_tables
from pipeline.wire.debezium import ChangeDecoder
from tests.wire.captured import captured

GOOD = "tables: {app.public.notes: {source: notes, id: id, tenant: {constant: acme}, body: text}}"


async def test_the_example_maps_the_captured_table() -> None:
    """Its recorded snapshot is decoded by it, and its connector's other topics are known."""
    tables = load_tables(resource("deploy", "tables.yaml"))
    table = tables.tables["app.public.documents"]
    assert (("id",), "tenant", ("title",), ("body",)) == (table.id, table.tenant.column, table.title, table.body)
    assert (None, "full", PLACEHOLDER) == (table.version.column, table.replica_identity, table.placeholder)
    decoder = ChangeDecoder(tables)
    records = [record for record in captured("01-snapshot.jsonl") if record.topic in decoder.topics]
    made = [await decoder.decode(record, record.topic) for record in records]
    assert [f"doc-000{n}" for n in range(1, 6)] == [one.id for one in made if isinstance(one, Document)]
    assert {"app.transaction", "app.message"} <= set(tables.ignored)


@pytest.mark.parametrize(
    "text,told",
    [
        ("tables: [", "line 1"),
        (f"{GOOD}\n{GOOD}", "the key 'tables' is given twice"),
        (GOOD.replace("id: id", "id: id, id: key"), "the key 'id' is given twice"),
        (GOOD.replace("text}", "text, colour: red}"), "colour: this key is not known"),
        (GOOD.replace("id: id", "id: 5"), "id: write a column's name"),
        (GOOD.replace("app.public.notes", "5"), "put it into quotes"),
        ("", "expected a mapping with tables"),
        ("x" * 1_000_001, "larger than"),
    ],
)
def test_a_bad_file_gives_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    """It names the file and the problem."""
    path = tmp_path / "tables.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_tables(path)
    assert str(caught.value).startswith(f"tables {path}:")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_variable(tmp_path: Path) -> None:
    """The sentence says what to set."""
    with pytest.raises(ConfigurationError, match="set PIPELINE_TABLES to a readable file"):
        load_tables(tmp_path / "none.yaml")

"""Tests of pipeline/wiring.py: which topics of others are read, and by whom. The rest of it is proved at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.core.errors import ConfigurationError
from pipeline.settings import Configured, Environment, load

TABLES = """
tables:
  app.public.documents: {source: documents, id: id, tenant: {constant: acme}, body: body}
  app.public.pages: {source: pages, id: id, tenant: {constant: acme}, body: body}
ignored: [app.transaction]
"""


def configured(folder: Path, text: str | None = TABLES) -> Configured:
    """Configure a mapping; None for a file that is not there."""
    path = folder / "tables.yaml"
    if text is not None:
        path.write_text(text)
    return load(Environment({"PIPELINE_TABLES": str(path)}), wiring.STAGES)


def test_the_tables_are_those_of_index(tmp_path: Path) -> None:
    """Each table's topic is read by it, what is ignored by nobody, and no other stage reads any."""
    known = configured(tmp_path)
    read = {name: list(wiring.foreign_topics(known, stage)) for name, stage in wiring.STAGES.items()}
    assert read.pop("index") == ["app.public.documents", "app.public.pages"]
    assert not any(read.values())


def test_without_a_mapping_nothing_foreign_is_read() -> None:
    """As before there were any."""
    known = load(Environment({}), wiring.STAGES)
    assert wiring.tables_of(known, list(wiring.STAGES.values())) is None
    assert not wiring.foreign_topics(known, wiring.STAGES["index"])


@pytest.mark.parametrize("text", [None, "tables: {}", "tables: {a b: 1}"])
def test_a_bad_mapping_stops_only_who_reads_it(tmp_path: Path, text: str | None) -> None:
    """The sentence names the file; a worker without `index` starts."""
    known = configured(tmp_path, text)
    assert wiring.tables_of(known, [wiring.STAGES["infer"]]) is None
    with pytest.raises(ConfigurationError, match=r"tables \S+tables\.yaml"):
        wiring.tables_of(known, [wiring.STAGES["infer"], wiring.STAGES["index"]])


def test_topics_of_others_are_never_created_grown_or_deleted(tmp_path: Path) -> None:
    """What is done to all topics of the prefix is done to no other."""
    known = configured(tmp_path)
    assert wiring.topic_names(known)
    assert all(name.startswith("pipeline.") for name in wiring.topic_names(known))

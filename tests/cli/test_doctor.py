"""Tests of pipeline/cli/doctor.py: the mapping of tables, and who else is asked where it is configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.cli.doctor import examine
from pipeline.devkit.kafka import Broker
from pipeline.devkit.ports import free_ports
from pipeline.settings import Environment, load

GOOD = "tables: {app.public.documents: {source: documents, id: id, tenant: {constant: acme}, body: body}}"


@pytest.mark.parametrize("text, fine, found", [(GOOD, True, "1 are mapped"), ("tables: {}", False, "cannot be used")])
async def test_a_mapping_is_looked_at_where_there_is_one(tmp_path: Path, text: str, fine: bool, found: str) -> None:
    """A broken one is found before a worker is started, with the sentence that says how to mend it."""
    (tmp_path / "tables.yaml").write_text(text)
    known = load(Environment({"PIPELINE_TABLES": str(tmp_path / "tables.yaml")}), wiring.STAGES)
    (tables,) = [one async for one in examine(known) if one.name == "tables"]
    assert (tables.fine, tables.found) == (fine, found)
    assert fine == (not tables.cure)


async def test_without_a_mapping_nothing_is_said() -> None:
    """Most pipelines have none."""
    known = load(Environment({}), wiring.STAGES)
    named = [one.name async for one in examine(known)]
    assert "PostgreSQL" in named
    assert not {"tables", "tables: topics", "schemas", "source database"}.intersection(named)


@pytest.mark.local
async def test_who_is_configured_is_asked(tmp_path: Path) -> None:
    """Somebody who is away is a finding, with the sentence that stages would wait with; passwords are not shown."""
    away = free_ports(1)[0]
    (tmp_path / "tables.yaml").write_text(GOOD)
    environ = {
        "PIPELINE_TABLES": str(tmp_path / "tables.yaml"),
        "SCHEMA_REGISTRY_URL": f"http://me:hunter2@127.0.0.1:{away}",
        "SOURCE_DATABASE_URL": f"postgresql://me:hunter2@127.0.0.1:{away}/shop",
    }
    found = {one.name: one async for one in examine(load(Environment(environ), wiring.STAGES))}
    for name, says in (("schemas", "cannot be reached"), ("source database", "the source database")):
        assert (found[name].fine, says in found[name].cure) == (False, True)
    assert "hunter2" not in str(found)
    assert "tables: topics" not in found


@pytest.mark.kafka
async def test_a_topic_that_no_connector_has_made_is_named(kafka: Broker, tmp_path: Path) -> None:
    """It may be that of an empty table, so nothing has to be mended."""
    (tmp_path / "tables.yaml").write_text(GOOD)
    environ = {"PIPELINE_TABLES": str(tmp_path / "tables.yaml"), "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    found = {one.name: one async for one in examine(load(Environment(environ), wiring.STAGES))}
    topics = found["tables: topics"]
    assert (topics.fine, topics.needed, topics.found) == (False, False, "not there yet: app.public.documents")

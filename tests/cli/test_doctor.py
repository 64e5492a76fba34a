"""Tests of pipeline/cli/doctor.py: the mapping of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.cli.doctor import examine
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
    assert "tables" not in [one.name async for one in examine(known)]

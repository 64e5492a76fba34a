"""`pipeline index` as a person meets it, on the embedded index."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import main  # noqa: F401  # the verbs register themselves
from pipeline.cli.app import app
from pipeline.clients.passage_rebuild import Rebuild
from pipeline.clients.qdrant import open_passages
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document

pytestmark = pytest.mark.local

HOURS = Document(
    source="handbook",
    id="shop",
    tenant="acme",
    title="Hours",
    body="",
    version=7,
    fields={"language": "en"},
    committed_at_ms=1_800_000_000_000,
)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """An index with two documents of two tenants and one removed, and no broker."""

    async def fill() -> None:
        async with open_passages(tmp_path / "qdrant", None, None, "pipeline-passages", time.time) as index:
            await index.replace(HOURS, [Chunk(0, "The shop opens at nine."), Chunk(1, "It closes at six.")])
            await index.replace(
                HOURS.model_copy(update={"id": "other", "tenant": "rival"}), [Chunk(0, "We open at ten.")]
            )
            await index.remove(HOURS.model_copy(update={"id": "gone", "version": 9}))

    asyncio.run(fill())
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "QDRANT_URL", "EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    return CliRunner()


def test_status_counts_by_source(filled: CliRunner) -> None:
    """Documents, removed ones and the newest version of each source; chunks and marks of all."""
    told = json.loads(filled.invoke(app, ["index", "status", "--json"]).stdout)
    assert told["sources"] == {
        "handbook": {
            "documents": 2,
            "removed": 1,
            "version": 9,
            "committed_at_ms": 1_800_000_000_000,
            "emptied": None,
        }
    }
    assert (told["chunks"], told["marks"], told["points"], told["lag"]) == (3, 3, 6, None)
    shown = filled.invoke(app, ["index", "status"])
    assert "handbook" in shown.stdout
    assert "3 chunks, 3 marks, 6 points; to be read: not known" in shown.stdout


def test_search_shows_what_one_tenant_may_see(filled: CliRunner) -> None:
    """Passages with source, document, chunk and version; another tenant's are not among them."""
    found = json.loads(filled.invoke(app, ["index", "search", "open at nine", "--tenant", "acme", "--json"]).stdout)
    assert (found[0]["document"], found[0]["chunk"], found[0]["version"]) == ("shop", 0, 7)
    assert {one["document"] for one in found} == {"shop"}
    shown = filled.invoke(app, ["index", "search", "when does it open", "--tenant", "rival"]).stdout
    assert "handbook/other#0 version 7 Hours" in shown
    assert "We open at ten." in shown


def test_filters_narrow_a_search(filled: CliRunner) -> None:
    """All that are given must hold; one without a value is refused with an example."""
    search = ["index", "search", "open", "--tenant", "acme", "--json", "--filter"]
    assert json.loads(filled.invoke(app, [*search, "language=en"]).stdout)
    assert json.loads(filled.invoke(app, [*search, "language=de"]).stdout) == []
    wrong = filled.invoke(app, [*search, "language"])
    assert wrong.exit_code == 2
    assert "NAME=VALUE" in wrong.stderr


def test_status_names_the_collections(filled: CliRunner) -> None:
    """The live one and all others, by what they were made, and how many points they have."""
    told = json.loads(filled.invoke(app, ["index", "status", "--json"]).stdout)
    assert (told["alias"], told["closing"]) == ("pipeline-passages", False)
    assert told["collections"] == [
        {"name": "pipeline-passages-1", "state": "live", "model": "", "dimension": 0, "points": 6}
    ]
    assert "live: pipeline-passages-1 (words alone), 6 points" in filled.invoke(app, ["index", "status"]).stdout


def test_what_a_rebuild_left_is_aborted_or_dropped(filled: CliRunner, tmp_path: Path) -> None:
    """--abort deletes what was being made, --drop what is no longer needed, after a question; never the live one."""

    async def begin(*, switch: bool) -> None:
        async with open_passages(tmp_path / "qdrant", None, None, "pipeline-passages", time.time) as index:
            rebuild = Rebuild(index.aliases, "0123456789ab")
            await rebuild.begin(lambda _: None)
            await rebuild.close()
            if switch:
                await rebuild.switch()

    asyncio.run(begin(switch=False))
    assert "writers wait" in " ".join(filled.invoke(app, ["index", "status"]).stdout.split())
    assert json.loads(filled.invoke(app, ["index", "rebuild", "--abort", "--json"]).stdout) == {
        "aborted": ["pipeline-passages-2"]
    }
    asyncio.run(begin(switch=True))
    refused = filled.invoke(app, ["index", "rebuild", "--drop"], input="n\n")
    assert "Delete pipeline-passages-1?" in refused.stderr
    assert refused.exit_code != 0
    dropped = filled.invoke(app, ["index", "rebuild", "--drop", "--yes"])
    assert "deleted: pipeline-passages-1" in dropped.stdout
    assert "deleted: nothing" in filled.invoke(app, ["index", "rebuild", "--drop"]).stdout
    told = json.loads(filled.invoke(app, ["index", "status", "--json"]).stdout)
    assert [one["name"] for one in told["collections"]] == ["pipeline-passages-2"]


def test_two_wishes_at_once_are_refused(filled: CliRunner) -> None:
    """--drop and --abort are two things."""
    assert filled.invoke(app, ["index", "rebuild", "--drop", "--abort"]).exit_code == 2

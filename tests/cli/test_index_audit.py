"""`pipeline index audit` as a person meets it: a real PostgreSQL and the embedded index."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from pipeline import auditing
from pipeline.cli import main  # noqa: F401  # the verbs register themselves
from pipeline.cli.app import app
from pipeline.clients.qdrant import open_passages
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document
from pipeline.devkit.ports import free_ports
from pipeline.devkit.postgres import Postgres
from tests.postgres_fixture import run_postgres
from tests.system.command import plain_environment, start

pytestmark = [pytest.mark.system]

TABLES = """
tables:
  app.public.notes: {source: notes, id: id, tenant: {constant: acme}, title: title, body: body}
  app.public.posts: {source: posts, id: id, tenant: {constant: acme}, body: body}
"""
ROWS = """
DROP TABLE IF EXISTS notes, posts;
CREATE TABLE notes (id text PRIMARY KEY, title text, body text);
CREATE TABLE posts (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES ('right', 'Hours', 'We open at nine.'), ('[new]', 'Hours', 'We open at ten.');
INSERT INTO posts VALUES (1, 'A post.');
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One server for all tests of this module."""
    yield from run_postgres(tmp_path_factory.mktemp("postgres"))


@pytest.fixture
def filled(source: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tables and an index: one row is not in it, one document has no row, another source has no table."""

    async def fill() -> None:
        connection = await asyncpg.connect(source.address())
        await connection.execute(ROWS)
        await connection.close()
        async with open_passages(tmp_path / "qdrant", None, None, "pipeline-passages", time.time) as index:
            for name, key, title, text in (
                ("notes", "right", "Hours", "We open at nine."),
                ("notes", "gone", "Hours", "We open at six."),
                ("posts", "1", "", "A post."),
                ("handbook", "x", "", "Somebody else's."),
            ):
                told = Document(source=name, id=key, tenant="acme", title=title, body="", version=5)
                await index.replace(told, [Chunk(0, text)])

    asyncio.run(fill())
    (tmp_path / "tables.yaml").write_text(TABLES)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "QDRANT_URL", "EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    monkeypatch.setenv("PIPELINE_TABLES", str(tmp_path / "tables.yaml"))
    monkeypatch.setenv("SOURCE_DATABASE_URL", source.address())
    return tmp_path


def invoke(*arguments: str, answer: str | None = None) -> Result:
    """Audit without waiting."""
    return CliRunner().invoke(app, ["index", "audit", "--settle", "0", *arguments], input=answer)


def test_differences_are_named_and_the_code_is_1(filled: Path) -> None:
    """A table by source, then each difference; whatever an id looks like, it is printed as it is."""
    told = invoke()
    assert told.exit_code == 1, told.output
    assert "missing notes/[new]: the index has nothing of it" in told.stdout
    assert "orphaned notes/gone: the table has no such row" in told.stdout
    assert "handbook: no table is mapped to it" in told.stdout
    assert told.stdout.rstrip().endswith("2 differences")
    assert told.stderr == ""
    assert invoke("--show", "0").stdout.count("notes/") == 0


def test_json_tells_the_same(filled: Path) -> None:
    """Each source with its figures, and the differences that are shown."""
    told = invoke("--json")
    assert told.exit_code == 1
    by_source = {one["source"]: one for one in json.loads(told.stdout)}
    notes = by_source["notes"]
    assert (notes["rows"], notes["documents"], notes["open"], notes["mapped"]) == (2, 2, 2, True)
    assert notes["differences"] == {"missing": 1, "stale": 0, "orphaned": 1, "refused": 0, "torn": 0}
    assert {(one["kind"], one["document"], one["fixed"]) for one in notes["shown"]} == {
        ("missing", "[new]", None),
        ("orphaned", "gone", None),
    }
    assert (by_source["handbook"]["mapped"], by_source["handbook"]["open"]) == (False, 0)


def test_a_source_or_a_topic_is_audited_alone(filled: Path) -> None:
    """What differs elsewhere is not looked at; a name that is neither says what there is."""
    for name in ("posts", "app.public.posts", "handbook"):
        told = invoke("--table", name)
        assert (told.exit_code, "no differences" in told.stdout) == (0, True), told.output
    assert invoke("--sample", "10", "--table", "notes").exit_code == 1
    wrong = invoke("--table", "nothing")
    assert wrong.exit_code == 2
    assert "--table nothing: neither a topic nor a source; there are app.public.notes" in wrong.stderr


def test_fix_asks_first_and_mends(filled: Path) -> None:
    """Without a yes nothing is done; with it all is mended, and the code is 0."""
    assert invoke("--fix", answer="n\n").exit_code == 1
    assert invoke().exit_code == 1
    told = invoke("--fix", answer="y\n")
    assert told.exit_code == 0, told.output
    assert "(fixed)" in told.stdout
    assert told.stdout.rstrip().endswith("no differences")
    again = invoke("--fix", "--yes")
    assert (again.exit_code, "fixed" in again.stdout) == (0, False)


def test_it_is_repeated_and_seen_from_outside(filled: Path, source: Postgres) -> None:
    """With --every it stays, and /metrics tells what the last audit found; SIGTERM ends it."""
    port = free_ports(1)[0]
    environment = plain_environment(
        PIPELINE_DATA=str(filled),
        PIPELINE_TABLES=str(filled / "tables.yaml"),
        PIPELINE_PROBES_PORT=str(port),
        SOURCE_DATABASE_URL=source.address(),
    )
    arguments = ("index", "audit", "--settle", "0", "--every", "1", "--table", "notes")
    process = start(*arguments, folder=filled, environment=environment)
    try:
        lines = iter(process.stdout or ())
        for _ in range(2):
            assert any("2 differences" in line for line in lines)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
    finally:
        process.terminate()
        code = process.wait(60)
        if process.stdout:
            process.stdout.close()
    assert 'pipeline_index_audit_differences{kind="missing",source="notes"} 1.0' in metrics
    assert code == 130


@pytest.mark.parametrize(
    "variable, value, sentence",
    [
        ("PIPELINE_TABLES", "", "PIPELINE_TABLES is not set"),
        ("SOURCE_DATABASE_URL", "", "SOURCE_DATABASE_URL is not set"),
        ("SOURCE_DATABASE_URL", "postgresql://x:hidden@127.0.0.1:1/y", "the source database"),
    ],
)
def test_what_is_not_configured_is_said(
    filled: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    """One sentence that names the variable, and code 2; a password is not in it."""
    monkeypatch.setenv(variable, value)
    told = invoke()
    assert told.exit_code == 2
    assert sentence in told.stderr
    assert "hidden" not in told.output


def test_a_standby_is_audited_but_never_trusted(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be behind the index, so that nothing is mended by it."""

    async def says_so(_: object) -> bool:
        return True

    monkeypatch.setattr(auditing, "is_standby", says_so)
    told = invoke("--fix", "--yes")
    assert told.exit_code == 2
    assert "that of a standby" in told.stderr
    assert invoke().exit_code == 1

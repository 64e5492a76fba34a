"""Tests of pipeline/settings.py: what is shown of it, and the variables of the live index."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import FOREIGN, MASK, Environment, load, masked

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text, shown",
    [
        ("postgresql://app:hunter2@db:5432/app", f"postgresql://{MASK}@db:5432/app"),
        ("postgresql+asyncpg://app:x@hunter2@db/app", f"postgresql+asyncpg://{MASK}@db/app"),
        ("postgresql://db/app?user=u&password=hunter2", f"postgresql://db/app?user=u&password={MASK}"),
        ("postgresql://db/app?sslpassword=hunter2&a=b", f"postgresql://db/app?sslpassword={MASK}&a=b"),
        ("host=db user=app password=hunter2 port=1", f"host=db user=app password={MASK} port=1"),
        ("password=hunter2", f"password={MASK}"),
        ("https://u:hunter2@a:1,https://v:hunter2@b", f"https://{MASK}@a:1,https://{MASK}@b"),
        ("https://registry:8080/path", "https://registry:8080/path"),
        ("https://registry/users/a@b?at=c@d", "https://registry/users/a@b?at=c@d"),
    ],
)
def test_a_secret_inside_an_address_is_hidden(text: str, shown: str) -> None:
    """User and password of a URL, and passwords among its parameters or in a connection string; the rest is shown."""
    assert masked("SCHEMA_REGISTRY_URL", text) == shown
    assert SECRET not in shown


def test_a_variable_called_as_a_secret_is_hidden_whole() -> None:
    """Whatever it looks like."""
    assert masked("OPENAI_API_KEY", "sk-1") == MASK


def test_the_mapping_of_tables_is_a_path() -> None:
    """PIPELINE_TABLES names a file; without it there is none."""
    assert load(Environment({"PIPELINE_TABLES": "a/tables.yaml"}), ()).settings.tables == Path("a/tables.yaml")
    assert load(Environment({}), ()).settings.tables is None


def test_the_index_reads_a_variable_of_other_products() -> None:
    """It is listed by `pipeline config`."""
    assert "EMBEDDING_MODEL" in FOREIGN


def test_a_value_that_is_read_from_a_file_tells_the_file() -> None:
    """So that who uses it can look whether it changes; a variable's own value wins over its file."""
    environment = Environment({"A_FILE": "a.txt", "B": "b", "B_FILE": "b.txt", "C_FILE": ""}, {"C": "c"})
    assert [environment.file_of(name) for name in "ABCD"] == [Path("a.txt"), None, None, None]

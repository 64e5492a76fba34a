"""Tests of pipeline/cli/endpoints_rotate.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import endpoints_rotate
from pipeline.cli.app import app
from pipeline.clients.webhook import generate_secret, public_key
from pipeline.core.payloads import Audit
from pipeline.settings import Configured

OLD = generate_secret()


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> list[Audit]:
    """Keep what would be written to the audit topic."""
    kept: list[Audit] = []

    async def keep(_: Configured, record: Audit) -> None:
        kept.append(record)

    monkeypatch.setattr(endpoints_rotate, "_audit", keep)
    return kept


def rotate(*arguments: str, **variables: str) -> Result:
    """Run the verb for the endpoint of the catalog in the package."""
    return CliRunner().invoke(
        app, ["endpoints", "rotate", "default", *arguments], env={"WEBHOOK_URL": "x", **variables}
    )


def told(done: Result) -> dict[str, Any]:
    """Read the JSON that was printed."""
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def filed(folder: Path, text: str = OLD) -> tuple[Path, dict[str, str]]:
    """Put a secret into a file, and return it with the variable that names it."""
    path = folder / "secret"
    path.write_text(text)
    return path, {"WEBHOOK_SECRET_FILE": str(path), "WEBHOOK_SECRET": ""}


def test_a_file_gets_a_new_secret_before_the_old_one(tmp_path: Path, audited: list[Audit]) -> None:
    """Nothing that is printed or audited holds either."""
    path, variables = filed(tmp_path)
    done = rotate("--operator", "ann", "--reason", "yearly", **variables)
    new, old = path.read_text().split()
    assert (old, new.startswith("whsec_"), done.exit_code) == (OLD, True, 0)
    assert "pipeline endpoints rotate default --retire" in " ".join(done.output.split())
    (record,) = audited
    assert (record.action, record.subject, record.operator, record.reason) == (
        "endpoint.rotated",
        "default",
        "ann",
        "yearly",
    )
    assert record.details == {"secrets": "2", "variable": "WEBHOOK_SECRET"}
    for secret in (new, old):
        assert secret not in done.output + record.model_dump_json()


def test_the_new_one_is_printed_by_request(tmp_path: Path, audited: list[Audit]) -> None:
    """Of an ed25519 key the public half is told in any case: that is what the receiver needs."""
    path, variables = filed(tmp_path)
    assert told(rotate("--show", "--json", **variables))["secret"] == path.read_text().split()[0]
    made = told(rotate("--kind", "v1a", "--json", **variables))
    assert made["public_key"] == public_key(path.read_text().split()[0])
    assert "secret" not in made
    assert (made["secrets"], len(audited)) == (3, 2)
    assert rotate(**variables).exit_code == 2


def test_the_kind_stays_as_it_is_unless_another_is_asked_for(tmp_path: Path, audited: list[Audit]) -> None:
    """A receiver that verifies by a public key gets another one of these."""
    path, variables = filed(tmp_path, generate_secret("v1a"))
    assert rotate(**variables).exit_code == 0
    assert path.read_text().startswith("whsk_")
    assert rotate("--kind", "v3", **variables).exit_code == 2
    assert len(audited) == 1


def test_the_old_ones_are_retired(tmp_path: Path, audited: list[Audit]) -> None:
    """The newest alone stays; a second time there is nothing to retire."""
    path, variables = filed(tmp_path, f"{OLD} whsec_older")
    assert rotate("--retire", **variables).exit_code == 0
    assert path.read_text().strip() == OLD
    assert [one.action for one in audited] == ["endpoint.retired"]
    assert rotate("--retire", **variables).exit_code == 2


def test_a_plain_variable_is_not_changed(audited: list[Audit]) -> None:
    """What to set is told; nothing is audited, since nothing was done."""
    done = rotate(WEBHOOK_SECRET=OLD)
    assert "WEBHOOK_SECRET is a plain variable, so nothing was changed" in " ".join(done.output.split())
    assert (done.exit_code, OLD in done.output, audited) == (0, False, [])
    shown = told(rotate("--show", "--json", WEBHOOK_SECRET=OLD))
    assert (shown["changed"], shown["secret"].startswith("whsec_")) == (False, True)


def test_a_file_that_cannot_be_written_is_not_audited(tmp_path: Path, audited: list[Audit]) -> None:
    """As where it is mounted from elsewhere: here its folder is a file's name."""
    done = rotate(WEBHOOK_SECRET_FILE=str(tmp_path / "nowhere"), WEBHOOK_SECRET="")
    assert (done.exit_code, audited) == (2, [])

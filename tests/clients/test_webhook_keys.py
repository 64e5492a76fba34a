"""Tests of pipeline/clients/webhook_keys.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from pipeline.clients.webhook_keys import LOOK_SECONDS, Keyring
from pipeline.clients.webhook_signing import BadSecret, generate_secret, keys

OLD, NEW = generate_secret(), generate_secret()


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def sign(ring: Keyring, now: float) -> list[str]:
    return [key.sign("id", 1, b"{}") for key in ring.keys(now)]


def signatures(text: str) -> list[str]:
    return [key.sign("id", 1, b"{}") for key in keys(text)]


def write(file: Path, text: str) -> None:
    """Replace a file as a careful writer does: at once, by another file."""
    fresh = file.with_name("fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def test_a_changed_file_changes_the_keys(tmp_path: Path, lines: list[EventDict]) -> None:
    """Keys are changed while the program runs, within a second; the log says so, without the secret."""
    file = tmp_path / "secret"
    write(file, OLD)
    ring = Keyring("crm", OLD, "CRM_SECRET", file)
    assert sign(ring, 0.0) == signatures(OLD)
    write(file, f"{NEW} {OLD}\n")
    assert sign(ring, LOOK_SECONDS / 2) == signatures(OLD)
    assert sign(ring, LOOK_SECONDS) == signatures(f"{NEW} {OLD}")
    assert [line["action"] for line in lines] == ["webhook_secret_changed"]
    assert not any(secret in str(lines) for secret in (OLD, NEW))


def test_a_file_that_changed_before_the_first_look_is_seen(tmp_path: Path) -> None:
    """Between the start, where the secret is read, and the first post."""
    file = tmp_path / "secret"
    write(file, NEW)
    assert sign(Keyring("crm", OLD, "CRM_SECRET", file), 0.0) == signatures(NEW)


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    """Kubernetes changes a mounted secret by turning a link; size and time of both files may be equal."""
    for name, text in (("one", OLD), ("two", NEW)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        os.utime(tmp_path / name, ns=(1, 1))
    link = tmp_path / "secret"
    link.symlink_to("one")
    ring = Keyring("crm", OLD, "CRM_SECRET", link)
    assert sign(ring, 0.0) == signatures(OLD)
    link.unlink()
    link.symlink_to("two")
    assert sign(ring, LOOK_SECONDS) == signatures(NEW)


@pytest.mark.parametrize("bad", ["", "plain", f"{NEW} whsec_short", None], ids=["empty", "plain", "half", "gone"])
def test_a_bad_content_keeps_the_old_keys(bad: str | None, tmp_path: Path, lines: list[EventDict]) -> None:
    """Deliveries go on, the log names the endpoint and the variable once, and a mended file is taken."""
    file = tmp_path / "secret"
    write(file, OLD)
    ring = Keyring("crm", OLD, "CRM_SECRET", file)
    sign(ring, 0.0)
    if bad is None:
        file.unlink()
    else:
        write(file, bad)
    assert sign(ring, LOOK_SECONDS) == sign(ring, 2 * LOOK_SECONDS) == signatures(OLD)
    (line,) = lines
    assert line["action"] == "webhook_secret_refused"
    assert line["log_level"] == "warning"
    assert "'crm': CRM_SECRET" in line["event"]
    assert not bad or bad not in line["event"]
    write(file, NEW)
    assert sign(ring, 3 * LOOK_SECONDS) == signatures(NEW)


def test_a_file_that_is_no_text_keeps_the_old_keys(tmp_path: Path, lines: list[EventDict]) -> None:
    """Another kind of file there is told of as well."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe\x00")
    assert sign(Keyring("crm", OLD, "CRM_SECRET", file), 0.0) == signatures(OLD)
    assert [line["action"] for line in lines] == ["webhook_secret_refused"]


def test_without_a_file_nothing_is_looked_at() -> None:
    """A secret of a variable is what it was at the start."""
    assert sign(Keyring("crm", f"{OLD} {NEW}", "CRM_SECRET"), 9e9) == signatures(f"{OLD} {NEW}")


def test_a_bad_secret_is_refused_at_once() -> None:
    """At the start there is no old key."""
    with pytest.raises(BadSecret):
        Keyring("crm", "plain", "CRM_SECRET")

"""How a program tells how it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.bench.status import Status, Teller, read


def test_a_status_is_written_when_it_changes(tmp_path: Path) -> None:
    """Who looks reads the last one, with its time; one that says nothing new is not written again."""
    path, status = tmp_path / "member.status", Status(began=1.0, settled=3)
    assert read(path) == Status()
    teller = Teller(path)
    teller.tell(status)
    told = read(path)
    assert replace(told, at=0.0, cpu=0.0) == status
    assert told.at > 0
    path.unlink()
    teller.tell(status)
    assert not path.exists()
    teller.tell(replace(status, settled=4))
    assert read(path).settled == 4

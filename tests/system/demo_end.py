"""What must be true when a demo has ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

from pipeline.devkit.samples import requests
from tests.system.command import living_in


def assert_all_answered(folder: Path, printed: str) -> None:
    """Every sample request was delivered, once, at least 90 % are right, and all of them were shown."""
    summary, count = json.loads((folder / ".run" / "summary.json").read_text("utf-8")), len(requests())
    assert summary["broker"] in {"jars", "external"}
    assert (summary["submitted"], summary["delivered"]) == (count, count), printed
    assert (summary["dead"], summary["failed"], summary["duplicates"]) == (0, 0, 0)
    assert summary["correct"] >= 0.9 * count
    assert summary["seconds"] > 0
    for sample in requests():
        assert sample.input[:12] in printed
    assert not (folder / ".run" / "env").exists()


def assert_none_stays(folder: Path) -> None:
    """Soon no process works in the folder, or was told of it."""
    end = time.monotonic() + 30
    while left := living_in(folder):
        assert time.monotonic() < end, left
        time.sleep(0.05)

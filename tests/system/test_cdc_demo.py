"""`pipeline cdc`, which is `make cdc`, as a person meets it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from pipeline.devkit.postgres_programs import PostgresMissing, find_programs
from tests.system.command import living_in, pipeline

# It starts a broker of its own, from the jars that the shared broker has fetched.
pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.soak, pytest.mark.usefixtures("kafka")]


def test_an_answer_changes_with_a_row_and_goes_with_it(tmp_path: Path) -> None:
    """From an empty folder: the answer of the snapshot, of the edited row, and none from the deleted one; exit 0, and
    nothing stays.
    """
    try:
        find_programs()
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    folder = tmp_path / "with a space"
    folder.mkdir()
    done = pipeline("cdc", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = " ".join(re.sub(r"[│┃]", " ", done.stdout).split())
    assert shown.count("right") == 3
    assert "Debezium has read" in done.stderr
    end = time.monotonic() + 30
    while living_in(folder):
        assert time.monotonic() < end, living_in(folder)
        time.sleep(0.05)
    assert not (folder / ".run" / "cdc" / "postgres" / "data").is_symlink()

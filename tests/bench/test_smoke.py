"""The benchmarks run: from the command line to the file of results. How fast anything is, is not asked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.devkit.kafka import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.system]

ROOT = Path(__file__).parents[2]


def test_a_quick_run_writes_its_figures(kafka: Broker, tmp_path: Path) -> None:
    """`python -m tests.bench P1-avro --quick` measures what it names and writes a list of complete figures."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "P1-avro", "--quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / ".bench" / "results.json").read_text("utf-8"))
    assert [one["id"] for one in figures] == ["P1-avro"]
    for one in figures:
        assert set(one) == {"id", "what", "value", "low", "high", "goal", "met", "unit"}
        assert 0 < one["low"] <= one["value"] <= one["high"]
        assert one["met"] == (one["value"] >= one["goal"])
        assert one["unit"] == "x"
        assert one["id"] in done.stdout

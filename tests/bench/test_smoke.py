"""The benchmarks run: from the command line to the file of results. How fast anything is, is not asked here.

Those that take long run with `make soak` (all, quickly); those of P2 fetch the libraries of others.
"""

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

FIGURES = {
    "P8-idle": ["P8-idle"],
}


@pytest.mark.within(240)
@pytest.mark.parametrize("goal", FIGURES)
def test_a_quick_run_writes_its_figures(goal: str, kafka: Broker, tmp_path: Path) -> None:
    """`python -m tests.bench <goal> --quick` measures what it names and writes a list of complete figures."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", goal, "--quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / ".bench" / "results.json").read_text("utf-8"))
    assert [one["id"] for one in figures] == FIGURES[goal]
    for one in figures:
        assert set(one) == {"id", "what", "value", "low", "high", "goal", "met", "unit"}
        assert one["low"] <= one["value"] <= one["high"]
        reached, kept = one["value"] >= one["goal"], one["value"] <= one["goal"]
        assert one["met"] == (reached if "at least" in one["what"] else kept)
        assert one["unit"]
        assert one["id"] in done.stdout

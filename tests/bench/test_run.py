"""One benchmark after the other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.bench import failure
from tests.bench.failure import Failed, failed
from tests.bench.figures import Figure, at_least
from tests.bench.run import Run


async def _measured() -> list[Figure]:
    return [at_least("P0", "a against b", 0.75, [0.8])]


async def _endless() -> list[Figure]:
    await asyncio.Event().wait()
    return []


async def _hopeless() -> list[Figure]:
    raise Failed("the program ended with 1")


async def _wrong() -> list[Figure]:
    raise LookupError("nobody expected this")


@pytest.mark.virtual
async def test_a_benchmark_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failure is one sentence, however it came about; what the others find is written."""
    monkeypatch.setattr(failure, "OUTPUTS", tmp_path / "failed")
    run = Run(tmp_path / "results.json")
    for name, one in (("P1", _hopeless), ("P2", _wrong), ("P3", _endless), ("P4", _measured)):
        await run.take(name, f"{name}: a benchmark", one)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "P1 was not measured: the program ended with 1"
    assert lines[1].startswith("P2 was not measured: LookupError: nobody expected this (all of it: ")
    assert lines[2] == "P3 was not measured: its time of 480 s was over"
    assert (len(lines), run.failures) == (3, 3)
    assert [one["id"] for one in json.loads((tmp_path / "results.json").read_text("utf-8"))] == ["P0"]


def test_what_a_program_printed_last_is_in_the_sentence_and_all_of_it_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence tells which program it was and what it said last; its whole output is kept."""
    monkeypatch.setattr(failure, "OUTPUTS", tmp_path / "failed")
    (tmp_path / "output").write_text("Traceback\n  deep\nValueError: no\n\n", encoding="utf-8")
    error = failed(["python", "-m", "tests.bench.bare", "{}"], "ended with 1", tmp_path / "output")
    kept = tmp_path / "failed" / "output.txt"
    assert str(error) == f"tests.bench.bare ended with 1; its last line: ValueError: no (all of it: {kept})"
    assert "  deep\n" in kept.read_text("utf-8")

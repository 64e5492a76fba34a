"""What becomes of measured rounds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench.figures import Figure, at_least, at_most, ratios, table, write


def test_a_figure_is_the_median_and_the_spread_of_its_rounds() -> None:
    """One round that went wrong moves the spread and not the value, which alone decides whether a goal is met."""
    what = "a against b, at least 0.75"
    assert at_least("P0", "a against b", 0.75, [0.8, 0.1, 0.76]) == Figure("P0", what, 0.76, 0.1, 0.8, 0.75, True, "x")
    assert not at_least("P0", "a against b", 0.77, [0.8, 0.1, 0.76]).met


def test_some_goals_must_not_be_passed() -> None:
    """For seconds, less is better."""
    assert at_most("P0", "seconds", 2, [2.0, 1.0, 9.0], "s").met
    assert not at_most("P0", "seconds", 2, [2.1], "s").met


def test_variants_are_compared_round_by_round() -> None:
    """What ran at another time is no measure; a round that lacks one of the two is an error."""
    assert ratios([10, 30], [20, 10]) == [0.5, 3]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_figures_are_written_for_people_and_for_programs(tmp_path: Path) -> None:
    """The table and the file have every figure; the file replaces an older one."""
    figures = [at_least("P0", "a against b", 0.75, [0.8]), at_most("P0-s", "seconds", 2, [3], "s")]
    path = tmp_path / ".bench" / "results.json"
    write([], path)
    write(figures, path)
    assert json.loads(path.read_text("utf-8")) == [asdict(one) for one in figures]
    lines = table(figures).splitlines()
    assert [line.split()[0] for line in lines] == ["id", "P0", "P0-s"]
    assert [line.split()[6] for line in lines[1:]] == ["yes", "NO"]

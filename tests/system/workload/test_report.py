"""What a person is told: the seed, the nemesis' deeds, and the way of the notes concerned."""

from __future__ import annotations

from pathlib import Path

from tests.system.workload.checker import Violation
from tests.system.workload.forge import Forge
from tests.system.workload.report import SHOWN, Deed, report, trail

NAME = "p0-k0-000000"


def test_a_report_holds_what_is_needed() -> None:
    """It names the seed, the logs' folder, each deed with its time and what is wrong, and counts what it leaves out."""
    forge = Forge()
    forge.copy(forge.note(NAME, "tier"))
    found = [(forge.history(), violation) for violation in forge.found()]
    more = [(None, Violation("worker", "w1 ended with 1"))] * SHOWN
    text = report(4711, [Deed(3.25, "kill -9 w2")], [*found, *more], Path("folder of logs"))
    for told in ("seed 4711", "folder of logs", "3.25 s  kill -9 w2", f"work: lost: {NAME}", "... and 1 more"):
        assert told in text
    assert "the run: worker: w1 ended with 1" in text


def test_a_trail_tells_all_records_of_a_note() -> None:
    """A note's input, copies and ends are told in the order of time, with attempts, and which of them was aborted."""
    forge = Forge()
    origin = forge.right(NAME, "tier")
    forge.abort(forge.output(origin, at=1_800_000_011.0))
    forge.right("p1-k0-000000")
    lines = list(trail(forge.history(), NAME))
    assert ["t.notes/0/0", "t.work.retry.10s/0/0", "t.work/0/0", "t.work/0/1"] == [line.split()[1] for line in lines]
    assert "pipeline-attempts=1" in lines[1]
    assert "(aborted)" in lines[3]


def test_a_report_tells_the_way_of_both_notes() -> None:
    """Of two notes out of order both trails are told."""
    forge = Forge()
    first, second = forge.note(NAME), forge.note("p0-k0-000001")
    forge.output(second)
    forge.output(first)
    found = [(forge.history(), violation) for violation in forge.found()]
    text = report(1, [], found, Path("logs"))
    assert ["t.notes/0/1", "t.work/0/0", "t.notes/0/0", "t.work/0/1"] == [
        line.split()[1] for line in text.splitlines() if line.startswith("    ")
    ]

"""Plans of faults, drawn from seeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.devkit.crash import script
from pipeline.devkit.crash.faults import Fault, draw

STAGES = ("one", "two", "three")
SEEDS = st.integers(0, 1 << 32)


@given(SEEDS)
def test_a_plan_can_be_played(seed: int) -> None:
    """Every stage runs somewhere; every fault has its time within the run, in order, and a process that exists."""
    plan = draw(seed, STAGES)
    joining = {fault.target for fault in plan.faults if fault.kind == "join"}
    from_the_start = [stages for number, stages in enumerate(plan.processes) if number not in joining]
    assert {stage for stages in from_the_start for stage in stages} == set(STAGES)
    assert 1 <= len(plan.faults) <= 10
    assert [fault.at for fault in plan.faults] == sorted(fault.at for fault in plan.faults)
    assert all(0 <= fault.at <= plan.until and 0 <= fault.target < len(plan.processes) for fault in plan.faults)


@given(SEEDS)
def test_equal_seeds_equal_plans(seed: int) -> None:
    """A seed says all: plan and script are the same each time they are drawn."""
    assert draw(seed, STAGES) == draw(seed, STAGES)
    assert script.draw(seed, 60.0) == script.draw(seed, 60.0)


def test_all_kinds_of_faults_come_up() -> None:
    """Within a few dozen seeds everything has gone wrong that can."""
    kinds = {fault.kind for seed in range(60) for fault in draw(seed, STAGES).faults}
    assert kinds == set("kill stall stop join slow away untold late model index webhooks".split())


def test_a_fault_in_words() -> None:
    """A person reads when, whom and what."""
    fault = Fault("kill", 3.5, 2.0, target=1, steps=7)
    assert str(fault) == "   3.50 s  process 1 is killed 7 steps later, and started again after 2.0 s"


@given(SEEDS)
def test_a_script_is_of_few_keys(seed: int) -> None:
    """Six to twelve requests, so that a run stays small; those of raw bytes end as dead letters."""
    asked = script.draw(seed, 60.0).asked
    assert 6 <= len(asked) <= 12
    assert all(0 <= one.at <= 60.0 for one in asked)
    assert all((one.request is None) == bool(one.garbage) for one in asked)
    assert all(one.end == "dead" for one in asked if one.garbage)

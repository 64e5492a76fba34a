"""Plans of faults, drawn from seeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline import topology
from pipeline.devkit.crash import script
from pipeline.devkit.crash.faults import Fault, draw
from pipeline.devkit.crash.variants import Variant, varied

STAGES = topology.STAGES
SEEDS = st.integers(0, 1 << 32)


@given(SEEDS)
def test_a_plan_can_be_played(seed: int) -> None:
    """Every stage runs somewhere; every fault has its time within the run, in order, and a process that exists."""
    plan = draw(seed, STAGES)
    joining = {fault.target for fault in plan.faults if fault.kind == "join"}
    from_the_start = [stages for number, stages in enumerate(plan.processes) if number not in joining]
    assert {stage for stages in from_the_start for stage in stages} == {stage.name for stage in STAGES}
    assert 1 <= len(plan.faults) <= 18
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
    usual = "kill stall stop join slow away untold late model index webhooks"
    assert kinds == {*usual.split(), "transaction", "bug", "pause", "cancel", "grow"}


@given(SEEDS)
def test_variants_can_be_declared(seed: int) -> None:
    """What a plan says of stages is something that a topology may say as well, and each way comes up."""
    plan = draw(seed, STAGES)
    assert [stage.name for stage in varied(STAGES, plan.variants)] == [stage.name for stage in STAGES]


def test_all_variants_come_up() -> None:
    """Within a few dozen seeds each way to declare a stage; those that touch the outside are never exactly once."""
    drawn = {variant for seed in range(200) for variant in draw(seed, STAGES).variants}
    assert {variant.way for variant in drawn} == {"exactly once", "at most once", "unordered", "in place"}
    assert {one.stage for one in drawn if one.way == "exactly once"} == {"preprocess", "postprocess"}
    assert str(Variant("infer", "unordered")).strip() == "infer is declared without an order"


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

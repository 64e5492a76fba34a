"""The nemesis' plan: the seed decides it, it has each kind of trouble, and it hurts only what is there."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.system.workload.schedule import BROKER_SECONDS, MOST, SESSION_SECONDS, schedule

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
def test_a_seed_is_a_plan(seed: int) -> None:
    """The same seed gives the same plan, in the order of time."""
    plan = schedule(seed, 60.0, 3)
    assert plan == schedule(seed, 60.0, 3)
    assert plan == sorted(plan)
    assert plan != schedule(seed + 1, 60.0, 3)


@given(SEEDS)
def test_a_plan_has_each_kind_of_trouble(seed: int) -> None:
    """Within 40 s: a kill, a leave, a join, a stop shorter and one longer than the session, and a dead broker."""
    plan = schedule(seed, 40.0, 3)
    assert {"start", "kill", "leave", "stop", "continue", "kill broker"} <= {step.action for step in plan}
    began, stops = dict[str, float](), list[float]()
    for step in plan:
        if step.action == "stop":
            began[step.worker] = step.at
        elif step.action == "continue":
            stops.append(step.at - began[step.worker])
    assert min(stops) < SESSION_SECONDS < max(stops)


@given(SEEDS, st.integers(2, 4))
def test_only_a_running_worker_is_hurt(seed: int, first: int) -> None:
    """Nobody is killed twice, or stopped while stopped; there are never more workers than the machine bears."""
    running, stopped = {f"w{number + 1}" for number in range(first)}, set[str]()
    for step in schedule(seed, 120.0, first):
        match step.action:
            case "start":
                assert step.worker not in running | stopped
                running.add(step.worker)
            case "kill" | "leave":
                running.remove(step.worker)
            case "stop":
                running.remove(step.worker)
                stopped.add(step.worker)
            case "continue":
                stopped.remove(step.worker)
                running.add(step.worker)
        assert len(running) + len(stopped) <= MOST


@given(SEEDS)
def test_the_broker_has_time_to_come_back(seed: int) -> None:
    """Two blows to the broker are apart by the time that a restart takes."""
    blows = [step.at for step in schedule(seed, 300.0, 3) if "broker" in step.action]
    assert all(second - first >= BROKER_SECONDS for first, second in pairwise(blows))

"""A random schedule of records, outcomes, kills, stalls, joins and leaves; and a model of what may be paid for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.core import headers as h
from pipeline.core.errors import Defer, Fail, Retry
from pipeline.core.stage import Stage
from pipeline.devkit.clock import wall
from pipeline.runtime import follow, runner
from tests.examples import at_most
from tests.runtime.following import Reader, costly
from tests.runtime.world import Run, Script, World, header

PARTITIONS, RECORDS = 2, 14
CALL, STALL, FETCH = 2.0, 4.0, 1.0


@dataclass
class Paid:
    """One call: when it began and, unless it was cut, how it ended."""

    began: float
    ended: float | None = None
    outcome: str = "cut"


@dataclass
class Ledger:
    """All calls by text, and when workers were killed or stood still."""

    outcomes: dict[str, list[str]]
    calls: dict[str, list[Paid]] = field(default_factory=lambda: defaultdict(list))
    cuts: list[tuple[float, float]] = field(default_factory=list)
    stalls: dict[int, float] = field(default_factory=dict)

    def handler(self) -> Script:
        """A handler that plays the outcomes of each record, whichever worker it runs in."""
        return _Paying(self)


class _Paying(Script):
    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    async def __call__(self, event: Any, ctx: Any, /) -> Any:
        text = event.payload.text
        call = Paid(wall())
        self._ledger.calls[text].append(call)
        await asyncio.sleep(CALL)
        left = self._ledger.outcomes.get(text)
        call.outcome = left.pop(0) if left else "ok"
        call.ended = wall()
        if call.outcome == "retry":
            raise Retry("later")
        if call.outcome == "defer":
            raise Defer("not now", until=wall() + 12)
        if call.outcome == "fail":
            raise Fail("no")
        return await super().__call__(event, ctx)


def excused(ledger: Ledger, call: Paid, acknowledge: float) -> bool:
    """Whether a call was in flight, or its answer not acknowledged, at a kill or around a stalled owner."""
    end = (call.ended if call.ended is not None else call.began + CALL) + acknowledge + 0.3
    return any(call.began <= until and began <= end for began, until in ledger.cuts)


async def act(world: World, ledger: Ledger, what: str, stage: Stage) -> None:
    """Do one thing to the workers."""
    living = [run for run in world.runs if not run.task.done() and not run.consumer.dead]
    if what == "start" or not living:
        reader = Reader(world.broker, lag=0.05)
        run = await world.start(ledger.handler(), stage, patience=2.0, drain_seconds=5.0, reader=reader)
        run.consumer.loses_commits = what == "mute"
    elif what == "stop":
        await living[0].stop()
    elif what in {"kill", "mute"}:
        await kill(ledger, living[-1])
    else:
        # It begins with the next fetch, which may be behind another stall, and ends when the one after has heard.
        began = max(wall(), ledger.stalls.get(id(living[0]), 0.0))
        ledger.stalls[id(living[0])] = began + STALL + 2 * FETCH
        ledger.cuts.append((wall(), began + STALL + 2 * FETCH + CALL))
        living[0].consumer.stall = STALL


def all_answered(world: World) -> bool:
    """Whether each event has an answer."""
    answers = [*world.records("t.out"), *world.records("t.failures")]
    return len(answers) >= RECORDS and len({header(one, h.PARENT) for one in answers}) == RECORDS


async def kill(ledger: Ledger, run: Run) -> None:
    """End a worker as SIGKILL does."""
    began = wall()
    await run.kill()
    ledger.cuts.append((began, wall()))


actions = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda tenths: tenths / 10),
        st.sampled_from(["start", "start", "stop", "kill", "mute", "stall"]),
    ),
    min_size=2,
    max_size=9,
)
outcomes = st.dictionaries(
    st.integers(0, RECORDS - 1).map(lambda number: f"n{number}"),
    st.lists(st.sampled_from(["retry", "defer", "fail", "ok"]), min_size=1, max_size=2),
    max_size=5,
)


@pytest.fixture(scope="module", autouse=True)
def _rare_looks() -> Iterator[None]:
    """Let idle workers look once in a second: ten looks of each are most of what a schedule costs.

    Whatever happens wakes them all the same, and later commits leave more to be found in the answers.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "FETCH_SECONDS", FETCH)
        patch.setattr(follow, "FETCH_SECONDS", 5.0)
        yield


@pytest.mark.virtual
@settings(max_examples=at_most(40))
@given(actions=actions, outcomes=outcomes, acknowledge=st.sampled_from([0.0, 0.5]), repeats=st.booleans())
async def test_calls_are_answers_and_what_was_cut(
    actions: list[tuple[float, str]], outcomes: dict[str, list[str]], acknowledge: float, repeats: bool
) -> None:
    """Each call of a record is its first, or follows one that failed, or one in flight at a kill or around a stall."""
    world = await World.make(PARTITIONS, MemoryBroker(wall, MemoryTimes(session=3.0, acknowledge=acknowledge)))
    ledger = Ledger({text: list(given_) for text, given_ in outcomes.items()})
    stage = costly(concurrency=4, timeout=10)
    for number in range(RECORDS):
        world.put(f"n{number}", key=b"%d" % (number % 5), partition=number % 2, headers={h.CE_ID: f"event-{number}"})
    for pause, what in actions:
        await act(world, ledger, what, stage)
        await asyncio.sleep(pause)
    if repeats:
        world.put("n0", key=b"0", headers={h.CE_ID: "event-0"})
    await act(world, ledger, "start", stage)
    await world.until(lambda: all_answered(world), seconds=900)
    await world.settle(20)
    await world.stop()
    for text, calls in ledger.calls.items():
        for before in calls[:-1]:
            assert before.outcome in {"retry", "defer"} or excused(ledger, before, acknowledge), f"{text}: {calls}"

"""A stage that does harm stops itself, and one that is held up says by what."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from pipeline.core.errors import Defer, Fail, Reject
from pipeline.core.flood import FloodLimits
from pipeline.core.stage import Stage
from pipeline.devkit.clock import EPOCH
from tests.runtime.world import Script, World


class Broken(Script):
    """A handler that rejects all records, or all but some."""

    def __init__(self, *well: str) -> None:
        super().__init__()
        self.well = well

    async def __call__(self, event: object, ctx: object, /) -> list[object]:
        text = event.payload.text  # type: ignore[attr-defined]  # an event of a note
        self.done.append(text)
        if text in self.well:
            return []
        raise Reject("broken")


def flooded() -> Stage:
    """Declare a stage that halts after ten."""
    return World.stage(concurrency=1, flood=FloodLimits(run=10))


async def fresh(world: World) -> int:
    """Count the fresh dead letters as a new worker does."""
    return await world.broker.written_since(["t.work.dlq"], int((EPOCH - 600) * 1000))


@pytest.mark.virtual
async def test_a_flood_halts_the_stage_over_restarts_until_a_person_lets_it_pass() -> None:
    """Ten in a row: nine are dead letters, the tenth stays; restarts add none; a person's word adds what it says."""
    world = await World.make()
    world.put(*map(str, range(40)))
    run = await world.start(Broken(), flooded())
    halt = await run.halted()
    assert (halt.code, len(world.dead()), world.at()) == ("flood", 9, 9)
    assert "--accept-dead-letters" in halt.reason
    for _ in range(3):
        run = await world.start(Broken(), flooded(), dead_before=await fresh(world))
        await run.halted()
        assert (len(world.dead()), world.at()) == (9, 9)
    run = await world.start(Broken(), flooded(), dead_before=await fresh(world), accept_dead=20)
    await run.halted()
    assert (len(world.dead()), world.at()) == (29, 29)
    world.runs.clear()
    mended = await world.start(Script(), flooded(), dead_before=await fresh(world))
    await world.until(lambda: world.at() == 40)
    assert len(mended.handler.done) == 11
    await world.stop()


@pytest.mark.virtual
async def test_failures_are_no_flood() -> None:
    """A hundred requests that cannot be served are a hundred failure events, and the stage goes on."""
    world = await World.make()
    world.put(*map(str, range(100)))
    await world.start(Script(**{str(number): [Fail("no")] for number in range(100)}), flooded())
    await world.until(lambda: world.at() == 100)
    assert len(world.failures()) == 100
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_the_record_that_holds_the_frontier_is_named() -> None:
    """After a minute and each time that has doubled: where it stands, what it does, and how many are behind it."""
    world = await World.make()
    with capture_logs() as lines:
        run = await world.start(Script(lambda text: 500.0 if text == "slow" else 0.0), World.stage(timeout=600))
        world.put("a", key=None)
        world.put("slow", "b", key=b"k")
        world.put("c", key=None)
        await world.until(lambda: world.metric("head_of_line_seconds") > 300)
        await world.until(lambda: world.at() == 4)
        await world.settle()
    named = [line for line in lines if line.get("action") == "work.head_of_line"]
    assert [line["source"] for line in named] == ["t.in/0/1"] * 4
    assert [line["seconds"] for line in named] == [pytest.approx(seconds, abs=1) for seconds in (60, 120, 240, 480)]
    assert {line["behind"] for line in named} == {2}
    assert "its handler runs" in named[0]["event"]
    assert world.metric("head_of_line_seconds") == 0
    assert run.handler.done[-2:] == ["slow", "b"]
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_what_a_tier_holds_is_not_late() -> None:
    """A record that waits for its tier holds nobody up, and is not named."""
    world = await World.make()
    with capture_logs() as lines:
        await world.start(Script(a=[Defer("later", until=EPOCH + 640)]))
        world.put("a")
        await world.until(lambda: world.texts() == ["a!"])
    assert [line for line in lines if line.get("action") == "work.head_of_line"] == []
    await world.stop()

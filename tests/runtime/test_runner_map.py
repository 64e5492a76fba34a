"""The offset map at work: what is settled beyond a stuck record is not handled again, whoever comes next."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from pipeline.core.offset_map import Progress, read, spell
from pipeline.core.record import Commit, Partition
from tests.runtime.world import Script, World

IN = Partition("t.in", 0)


def slow(text: str) -> float:
    """One record takes an hour; the others take no time."""
    return 3_600.0 if text == "stuck" else 0.0


async def behind_a_stuck_record(world: World) -> Script:
    """Let a worker settle nine records behind one that is stuck, and commit that."""
    handler = Script(slow)
    await world.start(handler, World.stage(timeout=7_200))
    world.put("stuck", key=b"a")
    world.put(*map(str, range(9)), key=b"b")
    await world.until(lambda: len(handler.done) == 9)
    await world.settle()
    return handler


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("ending", ["kill", "stop", "rebalance"])
async def test_what_is_settled_is_skipped_by_the_next_owner(ending: str) -> None:
    """After a kill, a stop or a rebalance the stuck record alone is handled again, and lag reaches 0."""
    world = await World.make()
    await behind_a_stuck_record(world)
    if ending == "kill":
        await world.runs[0].kill()
    elif ending == "stop":
        await world.runs[0].stop()
    else:
        world.runs[0].consumer._inner.expel()
    following = Script()
    await world.start(following)
    await world.until(lambda: world.at() == 10)
    assert following.texts == ["stuck"]
    assert sorted(world.texts()) == sorted(["stuck!", *(f"{number}!" for number in range(9))])
    await world.stop()


@pytest.mark.virtual
async def test_every_commit_carries_the_map_until_it_is_passed() -> None:
    """The map survives a second owner that does nothing, and is gone from the metadata when it is done with."""
    world = await World.make()
    await behind_a_stuck_record(world)
    await world.runs[0].kill()
    idle = await world.start(Script(slow), World.stage(timeout=7_200))
    await world.until(lambda: idle.handler.texts == ["stuck"])
    world.put("more", key=b"b")
    await world.until(lambda: idle.handler.done == ["more"])
    await world.settle()
    commit = world.broker.group("t.work").committed[IN]
    assert read(commit.offset, commit.metadata).settled == (range(1, 11),)
    await idle.kill()
    last = await world.start(Script())
    await world.until(lambda: world.at() == 11)
    assert last.handler.texts == ["stuck"]
    assert world.broker.group("t.work").committed[IN] == Commit(11)
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize(
    "metadata", ["someone else's", "lep9:rabc", spell(0, Progress((range(1, 5),)))[:-1], "\N{SNOWMAN}"]
)
async def test_metadata_that_cannot_be_read_are_ignored_with_a_warning(metadata: str) -> None:
    """Another application's, a newer version's, truncated: all is handled, nothing is skipped on a guess."""
    world = await World.make()
    world.put("a", "b", "c")
    world.broker.group("t.work").committed[IN] = Commit(0, metadata)
    with capture_logs() as lines:
        run = await world.start(Script())
        await world.until(lambda: world.at() == 3)
    assert run.handler.texts == ["a", "b", "c"]
    (warning,) = [line for line in lines if line.get("action") == "metadata_ignored"]
    assert "t.in/0" in warning["event"]
    await world.stop()

"""Where a costly stage begins to read its answers, and which of them are of its records."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from pipeline.core.errors import Fail, Retry
from pipeline.core.offset_map import Progress, mark, spell
from pipeline.core.record import Commit, Partition
from pipeline.runtime import follow
from tests.runtime.following import Reader, costly, progress, uncommitted
from tests.runtime.world import Script, World

IN = Partition("t.in", 0)


@pytest.mark.virtual
@pytest.mark.parametrize("metadata", ["", "someone else's", "lep9:rabc", spell(0, Progress(followed={1: 2}))[:-1]])
async def test_metadata_that_say_nothing_mean_the_beginning_of_the_log(metadata: str) -> None:
    """Empty, foreign, newer, truncated: all answers are read, and the log says how many there are to read."""
    world = await World.make()
    first = await uncommitted(world, Script())
    world.put("a", "b")
    await world.until(lambda: len(world.texts()) == 2)
    await first.kill()
    world.broker.group("t.work").committed[IN] = Commit(0, metadata)
    with capture_logs() as lines:
        second = await world.start(Script(), costly())
        await world.until(lambda: world.at() == 2)
    assert second.handler.texts == []
    told = [line["event"] for line in lines if line.get("action") == "answers_begun" and "t.in/0" in line["event"]]
    assert told == ["t.in/0: catching up with its answers, 2 records to read, from the beginning of the log"]
    await world.stop()


@pytest.mark.virtual
@pytest.mark.parametrize("back", [0, 30])
async def test_reading_begins_where_the_commit_says(back: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred records settled, one running: the next owner reads what came after, and a few for repetitions."""
    monkeypatch.setattr(follow, "LOOK_BACK", back)
    world = await World.make()
    first = await world.start(Script(lambda text: 100.0 if text == "slow" else 0.0), costly())
    world.put(*map(str, range(100)), key=None)
    await world.until(lambda: world.at() == 100)
    world.put("slow", "last", key=None)
    await world.until(lambda: "last!" in world.texts())
    await world.settle(10)
    await first.kill()
    assert progress(world).settled == (range(101, 102),)
    assert progress(world).followed[mark("t.out")] == 101
    reader = Reader(world.broker)
    second = await world.start(Script(), costly(), reader=reader)
    await world.until(lambda: world.at() == 102)
    assert (second.handler.texts, reader.count) == (["slow"], 1 + back)
    await world.stop()


@pytest.mark.virtual
async def test_a_place_beyond_the_end_is_in_a_log_that_is_no_more() -> None:
    """The output topic was deleted and made again: it is read from its beginning, and its answers are found."""
    world = await World.make()
    first = await uncommitted(world, Script())
    world.put("a")
    await world.until(world.texts)
    await first.kill()
    world.broker.group("t.work").committed[IN] = Commit(0, spell(0, Progress(followed={mark("t.out"): 10**6})))
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 1)
    assert second.handler.texts == []
    await world.stop()


@pytest.mark.virtual
async def test_what_answered_an_older_topic_answers_nothing_of_the_new_one() -> None:
    """The source was deleted and made again: at the places of answered records there are others now."""
    world = await World.make()
    first = await world.start(Script(b=[Fail("no")], c=[Retry("later")]), costly())
    world.put("a", "b", "c")
    await world.until(lambda: world.at() == 3)
    await first.stop()
    await world.broker.delete_topics(["t.in"])
    del world.broker.group("t.work").committed[IN]
    await world.create("t.in")
    await world.settle(1)
    world.put("d", "e", "f")
    second = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 3)
    assert second.handler.texts[:3] == ["d", "e", "f"]
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("unhurried")
async def test_a_mark_stays_below_answers_that_are_still_needed() -> None:
    """Answered and not settled by two owners in a row: the third finds the answers too."""
    world = await World.make()
    first = await uncommitted(world, Script())
    world.put("a", "b", "c", key=None)
    await world.until(lambda: len(world.texts()) == 3)
    await first.kill()
    world.put("stuck", key=None)
    # Takes up `stuck` only, since the others are parked behind a lookup that its slots never come to.
    second = await world.start(Script(1_000.0), costly(timeout=2_000, concurrency=1))
    await world.until(lambda: second.handler.texts == ["stuck"])
    await world.settle(10)
    await second.kill()
    third = await world.start(Script(), costly())
    await world.until(lambda: world.at() == 4)
    assert third.handler.texts == ["stuck"]
    await world.stop()

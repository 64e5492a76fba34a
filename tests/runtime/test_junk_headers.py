"""Bookkeeping headers that nobody honest writes: each has a defined outcome; none stops, loops or waits for ever."""

from __future__ import annotations

import pytest

from pipeline.core import headers as h
from pipeline.core.job import child_id
from pipeline.core.offset_map import Progress, mark, spell
from pipeline.core.record import Commit, Partition
from pipeline.core.stage import Topic
from tests.core.strategies import KNOWN
from tests.runtime.following import costly
from tests.runtime.world import OPEN, Note, Script, World

HUGE = b"9" * 400
JUNK: tuple[bytes | None, ...] = (
    *(None, b"", b"-1", b"-" + HUGE, HUGE, b"1000001", b"9223372036854775808", b"12.5", b"1e9", b"0x10", b"soon"),
    *(b"/", b"///", b"a/b/c/d", b"t.in/0/-1/-1", b"t.in/9999999999/9999999999999999999/9999999999999999999"),
    *(b"\xff\xfe", b"\x00", b" 1", "\u0664".encode(), b"x" * (h.MAX_VALUE + 1), b"%", b"%zz"),
)
TIER = "t.work.retry.10s"
LOOPED = {b"1000001", b"9223372036854775808", HUGE}
"""What reads as a count beyond all stages that there are."""
FAR = {HUGE, b"9223372036854775808"}
"""What reads as a time that never comes: the latest that a header may claim."""


def one_by_one(world: World, topic: str, names: tuple[str, ...] = KNOWN) -> list[str]:
    """Write a record for each header and each junk; returns their texts."""
    texts = []
    for name in names:
        for number, junk in enumerate(JUNK):
            if topic == TIER and name == h.NOT_BEFORE and junk in FAR:
                continue
            texts.append(f"{name}.{number}")
            world.put(texts[-1], key=None, topic=topic, headers=((name, junk),))
    return texts


@pytest.mark.virtual
@pytest.mark.parametrize("topic", ["t.in", "t.open", TIER])
async def test_every_record_comes_to_its_end(topic: str) -> None:
    """Whatever stands in whichever header: an answer, but for a count of hops that tells of a loop."""
    world = await World.make()
    source: Topic[Note] = OPEN if topic == "t.open" else Topic("in", Note)
    stage = World.stage(source)
    await world.create(TIER)
    texts = one_by_one(world, topic)
    run = await world.start(Script(), stage)
    await world.until(lambda: len(world.texts()) + len(world.dead()) == len(texts), seconds=60)
    await world.settle()
    assert world.at(topic) == len(texts)
    looped = {f"{h.HOPS}.{JUNK.index(junk)}" for junk in LOOPED} if topic != "t.open" else set()
    assert set(run.handler.texts) == set(texts) - looped
    assert {Note.model_validate_json(one.value or b"").text for one in world.dead()} == looped
    await world.stop()


@pytest.mark.virtual
@pytest.mark.usefixtures("slow_fetches")
async def test_a_time_that_never_comes_ends_with_the_job() -> None:
    """It moves through the longest tier, one copy every ten minutes; a deadline ends it, as it does any deferral."""
    world = await World.make()
    await world.create(TIER)
    run = await world.start(Script(), World.stage(enforce_deadline=True))
    due = {h.DEADLINE: "1800003600000"}
    for junk in FAR:
        world.put("a", key=None, topic=TIER, headers={h.NOT_BEFORE: junk.decode(), **due})
    await world.until(lambda: len(world.failures()) == len(FAR), seconds=5_000)
    assert ({one.code for one in world.failures()}, run.handler.texts) == ({"deadline"}, [])
    await world.stop()


@pytest.mark.virtual
async def test_junk_among_the_answers_upsets_nobody() -> None:
    """A costly stage reads what it finds on its topics: it catches up, calls for what has no answer, and settles it."""
    world = await World.make()
    names = (h.SETTLES, h.PARENT, h.OUTPUT, h.RUN, h.SOURCE, h.ORIGINAL, h.CE_ID)
    good = {
        h.SETTLES: b"t.in/0/1/5",
        h.PARENT: b"e",
        h.OUTPUT: b"0/1",
        h.CE_ID: child_id("e", "work.failure", 0, 0).encode(),
    }
    await world.create(TIER, "t.work.dlq")
    for topic in ("t.out", "t.failures", TIER, "t.work.dlq"):
        for name in names:
            for junk in JUNK:
                if topic != TIER or name != h.NOT_BEFORE:
                    world.write(b"junk", None, topic, headers=tuple({**good, name: junk}.items()))
    told = Progress(followed={mark("t.out"): 2**62, mark("t.failures"): 7})
    world.broker.group("t.work").committed[Partition("t.in", 0)] = Commit(0, spell(0, told))
    run = await world.start(Script(), costly(), tiers=False)
    world.put("a", "b")
    await world.until(lambda: world.at() == 2, seconds=30)
    assert run.handler.texts == ["a", "b"]
    await world.stop()

"""A source partition that is ahead of what it leads to waits; it is not failed, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from pipeline.core import names
from pipeline.core.retry import TIERS
from tests.runtime.world import Script, World

COPIES = [*(names.retry_topic("t", "work", tier) for tier in TIERS), "t.work.dlq", "t.failures", "t.out"]


class Counts:
    """Counts partitions, and how often it was asked; fails while it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked = 0
        self.broken = False

    async def __call__(self, topics: Sequence[str]) -> Mapping[str, int]:
        self.asked += 1
        if self.broken:
            raise LookupError("away")
        return await self.world.broker.partitions(topics)


@pytest.mark.virtual
async def test_a_partition_without_counterparts_waits_until_they_are_there() -> None:
    """The others go on; `/readyz` and the log say what is missing; when the last one has grown, all are answered."""
    world = await World.make(partitions=2)
    counts = Counts(world)
    with capture_logs() as lines:
        run = await world.start(Script(), counts=counts)
        await world.settle()
        await world.broker.grow_topic("t.in", 4)
        for number in range(4):
            world.put(f"{number}", key=b"%d" % number, partition=number)
        await world.until(lambda: len(run.handler.done) == 2)
        await world.settle(10)
        assert sorted(run.handler.done) == ["0", "1"]
        name, ready, words = run.runner.status()
        assert (name, ready) == ("work", False)
        assert words == "running, but 2 partitions wait for their counterparts: t.out has 2"
        for topic in COPIES:
            await world.broker.grow_topic(topic, 4)
        await world.until(lambda: len(world.texts()) == 4)
        await world.settle()
    assert run.runner.status() == ("work", True, "running")
    assert [line["topic"] for line in lines if line.get("action") == "counterparts_missing"] == ["t.out"]
    assert [world.at("t.in", number) for number in range(4)] == [1, 1, 1, 1]
    await world.stop()


@pytest.mark.virtual
async def test_an_output_topic_that_is_not_there_yet_is_waited_for() -> None:
    """Nothing is taken, nothing halts; made later, it is used."""
    world = await World.make()
    await world.broker.delete_topics(["t.out"])
    run = await world.start(Script(), counts=Counts(world))
    world.put("a")
    await world.settle(10)
    assert run.handler.calls == []
    assert run.runner.status()[2] == "running, but 4 partitions wait for their counterparts: t.out has 0"
    await world.create("t.out")
    await world.until(lambda: world.texts() == ["a!"])
    await world.stop()


@pytest.mark.virtual
async def test_a_count_that_fails_is_asked_again() -> None:
    """A cluster that does not answer keeps partitions waiting, is named in the log, and is asked until it does."""
    world = await World.make()
    counts = Counts(world)
    counts.broken = True
    run = await world.start(Script(), counts=counts)
    world.put("a")
    await world.settle(10)
    assert run.handler.calls == []
    counts.broken = False
    await world.until(lambda: world.texts() == ["a!"])
    assert 4 <= counts.asked < 10
    await world.stop()


@pytest.mark.virtual
async def test_where_keys_choose_the_partition_nothing_waits() -> None:
    """A repartitioning stage has no counterparts, and does not ask."""
    world = await World.make()
    await world.broker.grow_topic("t.in", 3)
    counts = Counts(world)
    await world.start(Script(), World.stage(repartition=True), counts=counts)
    world.put("a", partition=2)
    await world.until(lambda: world.texts() == ["a!"])
    assert counts.asked == 0
    await world.stop()


@pytest.mark.virtual
async def test_source_topics_that_are_not_there_are_named() -> None:
    """A stage is not ready while a topic it reads does not exist, and says which."""
    world = await World.make()
    await world.broker.delete_topics(["t.in"])
    run = await world.start(Script())
    await world.settle()
    assert run.runner.status() == ("work", False, "waiting for topics that do not exist: t.in")
    await world.create("t.in")
    world.put("a")
    await world.until(lambda: world.texts() == ["a!"])
    assert run.runner.ready()
    await world.stop()

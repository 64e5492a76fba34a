"""Facts about the port `Consumer` that one member alone shows, on any broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pipeline.core.errors import Halt
from pipeline.core.record import Commit, Outgoing, Partition
from tests.contracts.broker_bench import (
    TURN,
    Opens,
    Owner,
    fill,
    new_topic,
    nothing,
    numbers,
    take,
    turn,
    values,
    waiting_fetch,
    write,
)


class ReadingFacts:
    """What a member does with the partitions it has."""

    async def test_new_group_begins_at_the_beginning(self, opened: Opens) -> None:
        """A group that never committed reads all there is, even what was written before it existed."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=3)
            await fill(bench, topic, 30, partitions=3)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            assert set(values(await take(consumer, 30))) == set(numbers(30))
            assert owner.was_assigned == [Partition(topic, number) for number in range(3)]
            await nothing(consumer)

    async def test_assigned_before_its_records(self, opened: Opens) -> None:
        """`assigned` is called before any record of the partition is returned."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            await fill(bench, topic, 4, partitions=2)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            for record in await take(consumer, 4):
                assert Partition(record.topic, record.partition) in owner.owned

    async def test_limit(self, opened: Opens) -> None:
        """A fetch returns no more than was asked for, and the rest comes with the next ones, in order."""
        async with opened() as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 50)
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            taken: list[bytes | None] = []
            while len(taken) < 50:
                records = await consumer.fetch(7, TURN)
                assert len(records) <= 7
                taken += values(records)
            assert taken == numbers(50)

    async def test_fetch_wakes_at_once(self, opened: Opens) -> None:
        """A waiting fetch returns when a record comes, long before its timeout."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: bool(owner.owned))
            for number in range(3):
                waiting = waiting_fetch(consumer)
                await asyncio.sleep(0.1)
                assert not waiting.done()
                await write(producer, [Outgoing(topic, None, b"%d" % number)])
                assert values(await asyncio.wait_for(waiting, 20)) == [b"%d" % number]

    async def test_fetch_returns_nothing_in_time(self, opened: Opens) -> None:
        """With nothing to read a fetch returns empty after its timeout, also one of zero."""
        async with opened() as bench:
            consumer = bench.consumer(bench.name())
            consumer.subscribe([await new_topic(bench)], Owner())
            async with asyncio.timeout(20):
                await nothing(consumer)
                assert list(await consumer.fetch(500, 0.0)) == []

    async def test_cancelled_fetch_loses_nothing(self, opened: Opens) -> None:
        """A fetch may be cancelled at any time: what it would have returned comes with a later one, once."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: bool(owner.owned))
            for number in range(10):
                waiting = waiting_fetch(consumer)
                await asyncio.sleep(0)
                await write(producer, [Outgoing(topic, None, b"%d" % number)])
                waiting.cancel()
                (done,) = await asyncio.gather(waiting, return_exceptions=True)
                got = values(done) if isinstance(done, list) else []
                assert (got or values(await take(consumer, 1))) == [b"%d" % number]
            await nothing(consumer)

    async def test_pause_and_resume(self, opened: Opens) -> None:
        """A paused partition rests while others flow; after the resume nothing is missing and nothing comes twice."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            first, second = Partition(topic, 0), Partition(topic, 1)
            await fill(bench, topic, 100, partitions=2)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            taken = list(await take(consumer, 1, limit=10))
            consumer.pause([first, Partition("unknown", 3)])
            before = len([one for one in taken if one.partition == first.number])
            taken += await take(consumer, 50 + before - len(taken))
            await nothing(consumer)
            await fill(bench, topic, 100, partitions=2)
            taken += await take(consumer, 50)
            await nothing(consumer)
            consumer.resume([first, second])
            taken += await take(consumer, 200 - len(taken))
            await nothing(consumer)
            assert len(taken) == 200
            for number in range(2):
                assert [one.offset for one in taken if one.partition == number] == list(range(100))

    async def test_pause_and_resume_in_one_breath(self, opened: Opens) -> None:
        """The last of several wishes for one partition holds, and nothing is lost by the others."""
        async with opened() as bench:
            topic = await new_topic(bench)
            name = Partition(topic, 0)
            await fill(bench, topic, 60)
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            taken = list(await take(consumer, 1, limit=5))
            consumer.pause([name])
            consumer.resume([name])
            taken += await take(consumer, 60 - len(taken))
            consumer.resume([name])
            consumer.pause([name])
            await fill(bench, topic, 1)
            await nothing(consumer)
            assert values(taken) == numbers(60)

    async def test_wishes_while_a_fetch_waits(self, opened: Opens) -> None:
        """A resume that is stated while a fetch waits is heard by it."""
        async with opened() as bench:
            topic = await new_topic(bench)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: bool(owner.owned))
            consumer.pause(list(owner.owned))
            await fill(bench, topic, 3)
            waiting = waiting_fetch(consumer)
            await asyncio.sleep(0.3)
            assert not waiting.done()
            consumer.resume(list(owner.owned))
            taken = await asyncio.wait_for(waiting, 20)
            assert values(taken + await take(consumer, 3 - len(taken))) == numbers(3)

    async def test_positions(self, opened: Opens) -> None:
        """Positions come up to the end of what was returned, are never ahead of it, and unknown before that."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            name, idle = Partition(topic, 0), Partition(topic, 1)
            await write(bench.producer(), [Outgoing(topic, None, b"%d" % number, partition=0) for number in range(40)])
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            assert consumer.positions([name, idle]) == {}
            count = 0
            while count < 40:
                records = await consumer.fetch(3, TURN)
                assert consumer.positions([name]).get(name, 0) <= count
                count += len(records)
            await turn([consumer], lambda: consumer.positions([name, idle]) == {name: 40})
            assert consumer.positions([Partition("unknown", 0)]) == {}

    async def test_out_of_range(self, opened: Opens) -> None:
        """An offset whose records are gone halts; the verdict names group, place and the range that is left."""
        async with opened() as bench:
            topic, group = await new_topic(bench), bench.name()
            await fill(bench, topic, 10)
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            await take(consumer, 10)
            await consumer.close({Partition(topic, 0): Commit(3)})
            await bench.trim(Partition(topic, 0), 7)
            late = bench.consumer(group)
            late.subscribe([topic], Owner())
            with pytest.raises(Halt) as halted:
                await turn([late], lambda: False)
            for part in (group, f"{topic}/0", "offset 3 ", "[7, 10)"):
                assert part in halted.value.reason
            with pytest.raises(Halt):
                await late.fetch(500, TURN)

    async def test_trimmed_log_of_a_new_group(self, opened: Opens) -> None:
        """A group that never committed begins at the oldest record that is kept."""
        async with opened() as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 10)
            await bench.trim(Partition(topic, 0), 7)
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            assert [one.offset for one in await take(consumer, 3)] == [7, 8, 9]

    async def test_topic_that_comes_later(self, opened: Opens) -> None:
        """A topic that does not exist is waited for, while others are read; then it is read from its beginning."""
        async with opened() as bench:
            topic, late = await new_topic(bench), bench.name()
            await fill(bench, topic, 3)
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([late, topic], owner)
            assert values(await take(consumer, 3)) == numbers(3)
            await nothing(consumer)
            assert await new_topic(bench, name=late) == late
            await fill(bench, late, 3)
            assert [(one.topic, one.offset) for one in await take(consumer, 3)] == [(late, n) for n in range(3)]

    async def test_connected(self, opened: Opens) -> None:
        """A member that has its partitions is connected."""
        async with opened() as bench:
            consumer, owner = bench.consumer(bench.name()), Owner()
            consumer.subscribe([await new_topic(bench)], owner)
            await turn([consumer], lambda: bool(owner.owned))
            assert consumer.connected()

    async def test_owner_that_raises(self, opened: Opens) -> None:
        """An exception of the owner's own code comes out of `fetch`."""

        class Broken(Owner):
            def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
                raise ZeroDivisionError("the owner's own")

        async with opened() as bench:
            consumer = bench.consumer(bench.name())
            consumer.subscribe([await new_topic(bench)], Broken())
            with pytest.raises(ZeroDivisionError, match="the owner's own"):
                await turn([consumer], lambda: False)

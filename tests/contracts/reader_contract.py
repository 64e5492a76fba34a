"""Facts about the port `Reader`, on any broker: part of the contract of all brokers."""

from __future__ import annotations

import asyncio

from pipeline.core.ports import Reader
from pipeline.core.record import Outgoing, Partition
from tests.contracts.broker_bench import (
    TURN,
    Opens,
    fill,
    new_topic,
    nothing,
    numbers,
    take,
    values,
    waiting_fetch,
    write,
)


async def stands(reader: Reader, name: Partition, offset: int) -> None:
    """Fetch until reading stands at `offset`, taking no record."""
    for _ in range(100):
        if reader.positions().get(name) == offset:
            return
        assert list(await reader.fetch(500, TURN)) == []
    raise AssertionError(f"{name} stands at {reader.positions().get(name)} and not at {offset}")


class ReaderFacts:
    """What a reader without a group does."""

    async def test_reader_ends(self, opened: Opens) -> None:
        """The ends are the next offsets to be written; partitions that do not exist are left out, all of them, too."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            await fill(bench, topic, 5, partitions=2)
            parts = [Partition(topic, 0), Partition(topic, 1)]
            reader = bench.reader()
            assert await reader.ends([*parts, Partition(topic, 7), Partition(bench.name(), 0)]) == {
                parts[0]: 3,
                parts[1]: 2,
            }
            assert await reader.ends([]) == {}
            assert await reader.ends([Partition(bench.name(), 0)]) == {}

    async def test_reader_follows(self, opened: Opens) -> None:
        """What is followed is read from its offset on, in order, and goes on with what is written later."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            name = Partition(topic, 0)
            await fill(bench, topic, 10)
            reader = bench.reader()
            reader.follow(name, 4)
            assert values(await take(reader, 6)) == numbers(10)[4:]
            await stands(reader, name, 10)
            waiting = waiting_fetch(reader)
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await write(producer, [Outgoing(topic, None, b"10")])
            assert values(await asyncio.wait_for(waiting, 20)) == [b"10"]
            await stands(reader, name, 11)

    async def test_reader_limit_and_positions(self, opened: Opens) -> None:
        """A fetch returns no more than was asked for; positions are never ahead of what was returned."""
        async with opened() as bench:
            topic = await new_topic(bench)
            name = Partition(topic, 0)
            await fill(bench, topic, 50)
            reader = bench.reader()
            assert reader.positions() == {}
            reader.follow(name, 0)
            taken: list[bytes | None] = []
            while len(taken) < 50:
                records = await reader.fetch(7, TURN)
                assert len(records) <= 7
                taken += values(records)
                assert reader.positions().get(name, 0) <= len(taken)
            assert taken == numbers(50)
            await stands(reader, name, 50)

    async def test_reader_with_nothing_to_read(self, opened: Opens) -> None:
        """With nothing to read a fetch returns empty in time, and the position is where reading begins."""
        async with opened() as bench:
            topic = await new_topic(bench)
            name = Partition(topic, 0)
            reader = bench.reader()
            async with asyncio.timeout(20):
                await nothing(reader)
                assert list(await reader.fetch(500, 0.0)) == []
                reader.follow(name, 0)
                await stands(reader, name, 0)

    async def test_reader_of_a_trimmed_log(self, opened: Opens) -> None:
        """Where the log has the offset no longer, or not yet, reading begins at its beginning."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            await fill(bench, topic, 20, partitions=2)
            first, second = Partition(topic, 0), Partition(topic, 1)
            await bench.trim(first, 7)
            await bench.trim(second, 10)
            reader = bench.reader()
            reader.follow(first, 3)
            assert [record.offset for record in await take(reader, 3)] == [7, 8, 9]
            reader.follow(first, 99)
            assert [record.offset for record in await take(reader, 3)] == [7, 8, 9]
            reader.follow(second, 2)
            await stands(reader, second, 10)

    async def test_reader_goes_back(self, opened: Opens) -> None:
        """To follow once more is to go there; nothing of before comes after it."""
        async with opened() as bench:
            topic = await new_topic(bench)
            name = Partition(topic, 0)
            await fill(bench, topic, 10)
            reader = bench.reader()
            reader.follow(name, 0)
            assert values(await take(reader, 3, limit=3)) == numbers(3)
            reader.follow(name, 8)
            reader.follow(name, 6)
            assert values(await take(reader, 4)) == numbers(10)[6:]
            await nothing(reader)

    async def test_reader_leaves(self, opened: Opens) -> None:
        """What was left is read no more and has no position; the others go on."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            first, second = Partition(topic, 0), Partition(topic, 1)
            await fill(bench, topic, 10, partitions=2)
            reader = bench.reader()
            reader.follow(first, 0)
            reader.follow(second, 0)
            await take(reader, 10)
            reader.leave([first, Partition("unknown", 3)])
            await fill(bench, topic, 4, partitions=2)
            assert {record.partition for record in await take(reader, 2)} == {1}
            await nothing(reader)
            assert set(reader.positions()) == {second}

    async def test_reader_waits_for_a_topic(self, opened: Opens) -> None:
        """A topic that does not exist yet is waited for, while others are read."""
        async with opened() as bench:
            topic, late = await new_topic(bench), bench.name()
            await fill(bench, topic, 3)
            reader = bench.reader()
            reader.follow(Partition(late, 0), 5)
            reader.follow(Partition(topic, 0), 0)
            assert values(await take(reader, 3)) == numbers(3)
            assert set(reader.positions()) == {Partition(topic, 0)}
            assert await new_topic(bench, name=late) == late
            await fill(bench, late, 2)
            assert [(one.topic, one.offset) for one in await take(reader, 2)] == [(late, 0), (late, 1)]

    async def test_reader_ends_while_a_fetch_waits(self, opened: Opens) -> None:
        """Ends are looked up, and a wish is carried out, while a fetch waits."""
        async with opened() as bench:
            topic = await new_topic(bench)
            name = Partition(topic, 0)
            await fill(bench, topic, 3)
            reader = bench.reader()
            waiting = waiting_fetch(reader)
            await asyncio.sleep(0.1)
            async with asyncio.timeout(20):
                assert await reader.ends([name]) == {name: 3}
                assert not waiting.done()
                reader.follow(name, 2)
                assert values(await waiting) == [b"2"]

    async def test_reader_cancelled(self, opened: Opens) -> None:
        """A fetch may be cancelled at any time: what it would have returned comes with a later one, once."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            reader = bench.reader()
            reader.follow(Partition(topic, 0), 0)
            await nothing(reader)
            for number in range(5):
                waiting = waiting_fetch(reader)
                await asyncio.sleep(0)
                await write(producer, [Outgoing(topic, None, b"%d" % number)])
                waiting.cancel()
                (done,) = await asyncio.gather(waiting, return_exceptions=True)
                got = values(done) if isinstance(done, list) else []
                assert (got or values(await take(reader, 1))) == [b"%d" % number]
            await nothing(reader)

    async def test_reader_closed(self, opened: Opens) -> None:
        """A closed reader returns nothing, and closing it again changes nothing."""
        async with opened() as bench:
            topic = await new_topic(bench)
            reader = bench.reader()
            reader.follow(Partition(topic, 0), 0)
            await fill(bench, topic, 3)
            await reader.close()
            await reader.close()
            assert list(await reader.fetch(500, TURN)) == []

"""What every broker promises: one suite for the broker in memory and for Kafka under both group protocols.

A test module makes a class of `BrokerContract` with a fixture `opened`, which opens a fresh `Bench`.
"""

from __future__ import annotations

from pipeline.broker.topics import TopicSpec
from pipeline.core.record import Commit, Outgoing, Partition
from tests.contracts.broker_bench import Opens, Owner, fill, new_topic, numbers, take, turn, write
from tests.contracts.broker_groups import CommitFacts, GroupFacts
from tests.contracts.broker_reading import ReadingFacts
from tests.contracts.broker_writing import WritingFacts
from tests.contracts.reader_contract import ReaderFacts


class AdminFacts:
    """What an administrator sees."""

    async def test_create_is_idempotent(self, opened: Opens) -> None:
        """Creating topics says what was created and what was there, and leaves the latter as they are."""
        async with opened() as bench:
            first, second = bench.name(), bench.name()
            assert await bench.cluster.create_topics([]) == {}
            assert await bench.cluster.create_topics([TopicSpec(first, 3, {"retention.ms": "60000"})]) == {
                first: "created"
            }
            again = [TopicSpec(first, 5), TopicSpec(second, 2)]
            assert await bench.cluster.create_topics(again) == {first: "present", second: "created"}
            described = await bench.cluster.describe_topics([first, second, bench.name()])
            assert {name: state.partitions for name, state in described.items()} == {first: 3, second: 2}
            assert described[first].config["retention.ms"] == "60000"

    async def test_lag_and_ends(self, opened: Opens) -> None:
        """Lag counts from the commit to the end; where a group never committed, everything that is kept."""
        async with opened() as bench:
            topic, group = await new_topic(bench, partitions=2), bench.name()
            first, second = Partition(topic, 0), Partition(topic, 1)
            await fill(bench, topic, 20, partitions=2)
            await bench.trim(first, 4)
            assert await bench.cluster.end_offsets([topic, bench.name()]) == {first: 10, second: 10}
            assert await bench.cluster.lag(group, [topic]) == {first: 6, second: 10}
            consumer = bench.consumer(group)
            consumer.subscribe([topic], Owner())
            await take(consumer, 16)
            await consumer.close({first: Commit(10), second: Commit(9)})
            assert await bench.cluster.lag(group, [topic]) == {first: 0, second: 1}

    async def test_grow(self, opened: Opens) -> None:
        """A topic grows while it is written and read: new partitions take records at once, in order, and are read."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            consumer, owner, producer = bench.consumer(bench.name()), Owner(), bench.producer()
            consumer.subscribe([topic], owner)
            await turn([consumer], lambda: len(owner.owned) == 2)
            assert await write(producer, [Outgoing(topic, None, b"0", partition=1)]) == [None]
            await bench.cluster.grow_topic(topic, 4)
            await bench.cluster.grow_topic(topic, 3)
            assert await bench.cluster.partitions([topic, bench.name()]) == {topic: 4}
            five = [Outgoing(topic, None, value, partition=3) for value in numbers(5)]
            assert await write(producer, five) == [None] * 5
            taken = await take(consumer, 6)
            assert [one.value for one in taken if one.partition == 3] == numbers(5)

    async def test_written_since(self, opened: Opens) -> None:
        """Records are counted from a time on: all that is kept from long ago, none from the future or of no topic. The
        first of them is found as well; a time ahead of the log is its end."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            await fill(bench, topic, 20, partitions=2)
            await bench.trim(Partition(topic, 0), 4)
            assert await bench.cluster.written_since([topic, bench.name()], 0) == 16
            assert await bench.cluster.written_since([topic], 2**42) == 0
            first, second = Partition(topic, 0), Partition(topic, 1)
            assert await bench.cluster.offsets_at([topic, bench.name()], 0) == {first: 4, second: 0}
            assert await bench.cluster.offsets_at([topic], 2**42) == {first: 10, second: 10}

    async def test_delete_records(self, opened: Opens) -> None:
        """Records below an offset are gone for good; those of other partitions stay, and below the oldest none are."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=2)
            await fill(bench, topic, 20, partitions=2)
            first, second = Partition(topic, 0), Partition(topic, 1)
            assert await bench.cluster.delete_records({first: 4}) == {first: 4}
            assert await bench.cluster.delete_records({first: 2, second: 10}) == {first: 4, second: 10}
            assert await bench.cluster.begin_offsets([topic, bench.name()]) == {first: 4, second: 10}
            assert await bench.cluster.end_offsets([topic]) == {first: 10, second: 10}
            assert await bench.cluster.delete_records({}) == {}

    async def test_delete(self, opened: Opens) -> None:
        """A deleted topic is gone with its records; deleting it again changes nothing."""
        async with opened() as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 3)
            await bench.cluster.delete_topics([topic])
            await bench.cluster.delete_topics([topic, bench.name()])
            for _ in range(200):
                if not await bench.cluster.describe_topics([topic]):
                    break
            assert await bench.cluster.describe_topics([topic]) == {}


class BrokerContract(WritingFacts, ReadingFacts, ReaderFacts, CommitFacts, GroupFacts, AdminFacts):
    """All facts."""

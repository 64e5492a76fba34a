"""Facts about the port `Producer`, on any broker."""

from __future__ import annotations

import time

from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Outgoing, Partition
from tests.contracts.broker_bench import Opens, Owner, fill, new_topic, numbers, take, values, write


class WritingFacts:
    """What every producer does."""

    async def test_delivered_comes_once_and_later(self, opened: Opens) -> None:
        """`delivered` is called exactly once for each record, and never inside `send`."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            answers: list[Exception | None] = []
            for number in range(20):
                producer.send(Outgoing(topic, None, b"%d" % number), answers.append)
                assert answers == []
            assert await producer.flush(10) == 0
            assert answers == [None] * 20
            assert await producer.flush(0) == 0

    async def test_flush_counts_what_is_not_acknowledged(self, opened: Opens) -> None:
        """`flush` returns after its timeout how many records still wait."""
        async with opened() as bench:
            topic, producer = await new_topic(bench), bench.producer()
            answers: list[Exception | None] = []
            producer.send(Outgoing(topic, None, b"x"), answers.append)
            assert await producer.flush(0) == 1 - len(answers)
            assert await producer.flush(10) == 0

    async def test_order_within_a_partition(self, opened: Opens) -> None:
        """Records of one partition are read in the order in which they were sent, with ascending offsets."""
        async with opened() as bench:
            topic = await new_topic(bench)
            await fill(bench, topic, 1000)
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            records = await take(consumer, 1000)
            assert values(records) == numbers(1000)
            assert [record.offset for record in records] == list(range(1000))

    async def test_key_chooses_partition(self, opened: Opens) -> None:
        """Keys go where Java's murmur2 sends them, so that all producers of a topic agree; the empty key is one."""
        expected = {b"21": 3, b"foobar": 0, b"a-little-bit-long-string": 1, b"\xff\xfe\x80": 3, b"": 2}
        async with opened() as bench:
            topic = await new_topic(bench, partitions=7)
            await write(bench.producer(), [Outgoing(topic, key, b"v") for key in expected])
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            assert {one.key: one.partition for one in await take(consumer, len(expected))} == expected

    async def test_partition_that_was_asked_for(self, opened: Opens) -> None:
        """An explicit partition wins over the key."""
        async with opened() as bench:
            topic = await new_topic(bench, partitions=3)
            await write(bench.producer(), [Outgoing(topic, b"key", b"v", partition=number) for number in (2, 0, 1, 2)])
            ends = await bench.cluster.end_offsets([topic])
            assert ends == {Partition(topic, 0): 1, Partition(topic, 1): 1, Partition(topic, 2): 2}

    async def test_bytes_come_through(self, opened: Opens) -> None:
        """Key, value and headers come through byte for byte: nulls, empty ones, repeated and non-UTF-8 headers."""
        headers = (("a", b"1"), ("a", None), ("b", b""), ("a", b"\xff\xfe"), ("ü", b"\x00"))
        sent = [(b"k\xff", b"v\x00"), (None, None), (b"", b""), (b"k", None), (None, b"v")]
        async with opened() as bench:
            topic = await new_topic(bench)
            records = [Outgoing(topic, key, value, headers, partition=0) for key, value in sent]
            await write(bench.producer(), [*records, Outgoing(topic, b"bare", b"bare", partition=0)])
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            read = await take(consumer, len(sent) + 1)
            assert [(one.key, one.value) for one in read] == [*sent, (b"bare", b"bare")]
            assert [one.headers for one in read] == [*[headers] * len(sent), ()]

    async def test_timestamp(self, opened: Opens) -> None:
        """A record carries the time at which it was sent, in milliseconds."""
        async with opened() as bench:
            topic = await new_topic(bench)
            begin = int(time.time() * 1000)
            await fill(bench, topic, 1)
            consumer = bench.consumer(bench.name())
            consumer.subscribe([topic], Owner())
            (record,) = await take(consumer, 1)
            assert begin <= record.timestamp_ms <= int(time.time() * 1000)

    async def test_too_large(self, opened: Opens) -> None:
        """A record over the topic's limit is refused as RecordTooLarge; those beside it are not."""
        async with opened() as bench:
            topic = await new_topic(bench, config={"max.message.bytes": "20000"})
            roomy = await new_topic(bench, config={"max.message.bytes": "3000000"})
            producer = bench.producer()
            assert await write(producer, [Outgoing(topic, None, b"small")]) == [None]
            (refused,) = await write(producer, [Outgoing(topic, None, b"x" * 30_000)])
            assert isinstance(refused, RecordTooLarge)
            assert topic in str(refused)
            fine = [Outgoing(topic, None, b"small"), Outgoing(roomy, None, b"x" * 2_500_000)]
            assert await write(producer, fine) == [None, None]

    async def test_far_too_large(self, opened: Opens) -> None:
        """A record that no topic takes is refused as RecordTooLarge too."""
        async with opened() as bench:
            topic = await new_topic(bench)
            (refused,) = await write(bench.producer(), [Outgoing(topic, None, b"x" * 17 * 1024 * 1024)])
            assert isinstance(refused, RecordTooLarge)

    async def test_unknown_topic(self, opened: Opens) -> None:
        """A record for a topic that does not exist is refused by an exception that names it."""
        async with opened() as bench:
            name = bench.name()
            (refused,) = await write(bench.producer(), [Outgoing(name, None, b"x")])
            assert refused is not None
            assert not isinstance(refused, RecordTooLarge)
            assert name in str(refused)

    async def test_unknown_partition(self, opened: Opens) -> None:
        """A record for a partition that does not exist is refused, whether the topic is known already or not."""
        async with opened() as bench:
            topic, producer = await new_topic(bench, partitions=2), bench.producer()
            for _ in range(2):
                refused, fine = await write(
                    producer, [Outgoing(topic, None, b"x", partition=2), Outgoing(topic, None, b"x", partition=1)]
                )
                assert f"{topic}/2" in str(refused)
                assert fine is None

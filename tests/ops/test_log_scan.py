"""Reading up to the ends that topics had, and no further."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.topics import TopicSpec
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.devkit.clock import wall
from pipeline.ops.log_scan import Unread, scan


async def broker(*counts: int) -> MemoryBroker:
    """A broker with topic `a`, with so many records in each of its partitions."""
    made = MemoryBroker(wall)
    await made.create_topics([TopicSpec("a", len(counts), {})])
    for number, count in enumerate(counts):
        for _ in range(count):
            made.append(Outgoing("a", None, b"x", (), number))
    return made


@pytest.mark.virtual
async def test_a_scan_ends_where_the_topics_ended_when_it_was_asked_for() -> None:
    """What is written meanwhile is not read, and progress says how much is done."""
    made, steps = await broker(5, 3, 0), list[tuple[int, int]]()
    spans = {Partition("a", 0): range(1, 4), Partition("a", 1): range(3), Partition("a", 2): range(0)}
    batches = scan(made.reader(), spans, lambda done, total: steps.append((done, total)))
    read = [(record.partition, record.offset) async for records in batches for record in records]
    assert sorted(read) == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert steps[-1] == (6, 6)


@pytest.mark.virtual
async def test_a_partition_that_is_not_served_is_given_up_and_named() -> None:
    """A topic that goes while it is read must not hold a person for ever; what did come was handed on."""
    made, part = await broker(2, 2), Partition("a", 1)
    begin, reader, read = asyncio.get_running_loop().time(), made.reader(), list[Record]()

    async def all_of(spans: Mapping[Partition, range]) -> None:
        async for records in scan(reader, spans, patience=30.0):
            read.extend(records)

    with pytest.raises(Unread, match="Kafka does not serve a:1") as unread:
        await all_of({Partition("a", 0): range(2), part: range(1, 3)})
    assert ([part], 3) == (unread.value.partitions, len(read))
    assert 30 < asyncio.get_running_loop().time() - begin < 60
    assert reader.positions() == {}

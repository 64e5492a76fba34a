"""Reading topics from their beginning to where they ended when it began: a bounded snapshot, in bounded memory."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Protocol

from pipeline.core.errors import ConfigurationError, PipelineError
from pipeline.core.ports import Reader
from pipeline.core.record import Partition, Position, Record

# Short, as what stands last may be a transaction's marker, of which no fetch tells before it gives up.
FETCH_RECORDS, FETCH_SECONDS = 2_000, 0.05
FAR = 10_000
"""From so many offsets between two records on, those between are skipped instead of read."""

Opens = Callable[[], AbstractAsyncContextManager[Reader]]
"""Opens a reader, which is closed with the block. It sees what is committed only."""

Progress = Callable[[str, int, int], None]
"""Told of what is done, how many parts of it, and of how many in all."""


class Unread(PipelineError):
    """Of `partitions` nothing has come for too long; all others were read."""

    def __init__(self, partitions: Collection[Partition]) -> None:
        """Keep them."""
        super().__init__(f"Kafka does not serve {', '.join(sorted(f'{one.topic}:{one.number}' for one in partitions))}")
        self.partitions = partitions


class Shelf(Protocol):
    """What of the admin client looking at logs takes."""

    async def partitions(self, topics: Sequence[str], /) -> Mapping[str, int]:
        """Count the partitions of those topics that exist."""
        ...

    async def begin_offsets(self, topics: Sequence[str], /) -> Mapping[Partition, int]:
        """Return the oldest offset that is kept of every partition of those topics that exist."""
        ...

    async def offsets_at(self, topics: Sequence[str], timestamp_ms: int, /) -> Mapping[Partition, int]:
        """Return the offset of the first record that was written at or after a time; where there is none, the end."""
        ...

    async def delete_records(self, below: Mapping[Partition, int], /) -> Mapping[Partition, int]:
        """Delete the records below an offset of each partition; returns the oldest offset that is left."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where partitions began and ended at one moment: what is written later is not in it."""

    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]

    @property
    def spans(self) -> Mapping[Partition, range]:
        """The offsets in it, by partition."""
        return {name: range(self.begins[name], end) for name, end in self.ends.items()}

    @property
    def total(self) -> int:
        """Count the offsets in it; of a log that is compacted or written in transactions that is more than records."""
        return sum(map(len, self.spans.values()))

    def shares(self, count: int) -> list[Snapshot]:
        """Divide it into `count` parts of about one size, or fewer; partitions of one number stay together.

        So do then the entries about their letters: each part needs a part of these alone.
        """
        sizes: Counter[int] = Counter()
        for name, span in self.spans.items():
            sizes[name.number] += len(span)
        parts: list[set[int]] = [set() for _ in range(max(1, min(count, len(+sizes))))]
        for number, _ in sizes.most_common():
            min(parts, key=lambda part: sum(sizes[one] for one in part)).add(number)
        return [self.only(part) for part in parts]

    @property
    def numbers(self) -> set[int]:
        """The numbers of its partitions."""
        return {name.number for name in self.ends}

    def only(self, numbers: set[int]) -> Snapshot:
        """Return what of it is of partitions of these numbers."""
        ends = {name: end for name, end in self.ends.items() if name.number in numbers}
        return Snapshot({name: self.begins[name] for name in ends}, ends)


async def dead_of_others(shelf: Shelf, others: Sequence[str]) -> Mapping[str, int]:
    """Count the partitions of dead-letter topics that are not ours. Raises ConfigurationError for one that is none."""
    there = await shelf.partitions(others)
    if missing := [name for name in others if name not in there]:
        raise ConfigurationError(f"--topic {missing[0]}: there is no such topic")
    return there


@contextmanager
def unhindered() -> Iterator[None]:
    """Let nobody look for cycles of objects while the block runs.

    A million letters are a hundred million small objects, none of which is in a cycle; to look takes a fifth of the
    time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def take_snapshot(reader: Reader, shelf: Shelf, topics: Sequence[str]) -> Snapshot:
    """Look up where all partitions of those topics that exist begin and end."""
    counts = await shelf.partitions(topics)
    parts = [Partition(topic, number) for topic, count in counts.items() for number in range(count)]
    ends = await reader.ends(parts) if parts else {}
    begins = await shelf.begin_offsets(list(counts))
    return Snapshot({name: min(begins.get(name, 0), end) for name, end in ends.items()}, ends)


async def scan(
    reader: Reader,
    spans: Mapping[Partition, range],
    passed: Callable[[int, int], None] = lambda _done, _total: None,
    stop: Collection[Partition] = (),
    patience: float = inf,
) -> AsyncGenerator[Sequence[Record], None]:
    """Yield all records of some spans, in order within a partition; `passed` is told how many offsets of all are done.

    Meanwhile nothing else may use the reader. What retention deletes meanwhile is passed over. A partition that the
    caller adds to `stop` is read no further. Raises Unread after more than `patience` seconds without any progress.
    """
    left = {name: span for name, span in spans.items() if span}
    stands = {name: span.start for name, span in left.items()}
    done, total, clock = 0, sum(map(len, left.values())), asyncio.get_running_loop().time
    moved = clock()
    for name, start in stands.items():
        reader.follow(name, start)
    try:
        while left:
            yield _within(await reader.fetch(FETCH_RECORDS, FETCH_SECONDS), spans)
            positions = reader.positions()
            stands |= {name: min(max(positions.get(name, 0), stands[name]), span.stop) for name, span in left.items()}
            through = [name for name, span in left.items() if stands[name] == span.stop or name in stop]
            if through:
                reader.leave(through)
                left = {name: span for name, span in left.items() if name not in through}
            before, done = done, sum(stands[name] - spans[name].start for name in stands)
            passed(done, total)
            moved = clock() if done > before else moved
            if left and clock() - moved > patience:
                raise Unread(list(left))
    finally:
        reader.leave(list(left))  # whoever reads next is to have nothing of it


def _within(records: Sequence[Record], spans: Mapping[Partition, range]) -> Sequence[Record]:
    # As nearly always all of them are: the last of each partition shows it.
    last = {(record.topic, record.partition): record.offset for record in records}
    if all(offset < spans[Partition(*name)].stop for name, offset in last.items()):
        return records
    return [record for record in records if record.offset < spans[Partition(record.topic, record.partition)].stop]


async def records_at(
    reader: Reader, name: Partition, offsets: Sequence[int]
) -> AsyncIterator[tuple[int, Record | None]]:
    """Read the records at `offsets`, which ascend; None for one that is not there (any more)."""
    end = (await reader.ends([name])).get(name, 0)
    for stretch in _stretches([offset for offset in offsets if offset < end]):
        left = deque(stretch)
        reader.follow(name, left[0])
        while left:
            for record in await reader.fetch(min(FETCH_RECORDS, left[-1] - left[0] + 1), FETCH_SECONDS):
                while left and left[0] <= record.offset:
                    offset = left.popleft()
                    yield offset, record if offset == record.offset else None
            position = reader.positions().get(name, 0)
            while left and left[0] < position:
                yield left.popleft(), None
    reader.leave([name])
    for offset in offsets:
        if offset >= end:
            yield offset, None


def _stretches(offsets: Sequence[int]) -> Iterator[list[int]]:
    """Cut ascending offsets where so much lies between two that it is not worth reading."""
    stretch: list[int] = []
    for offset in offsets:
        if stretch and offset - stretch[-1] >= FAR:
            yield stretch
            stretch = []
        stretch.append(offset)
    if stretch:
        yield stretch


async def read_at(reader: Reader, place: Position) -> Record | None:
    """Read the record at a place; None where there is none any more, or none yet."""
    found = [one async for _, one in records_at(reader, Partition(place.topic, place.partition), [place.offset])]
    return found[0]

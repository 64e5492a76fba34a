"""The book of the dead letters, as a replay needs it: what was done about each, runs of jobs, and who replays now.

It is read from the compacted topic of states, and read on when it may have changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from sys import intern

from pipeline.core.errors import Reject
from pipeline.core.payloads import Letter
from pipeline.core.ports import Codec, Reader
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.core.replay import Entry
from pipeline.ops.letter_scan import scan
from pipeline.ops.letter_states import LEASE, entry_record


@dataclass(frozen=True, slots=True)
class Lease:
    """Who replays: `holder` is unique to a process. Times are epoch milliseconds; it is renewed again and again."""

    holder: str
    replay: str
    operator: str
    since_ms: int
    renewed_ms: int


@dataclass(slots=True)
class Book:
    """The states on `topic`, which has so many `partitions`. Nothing is known before the first `refresh`."""

    topic: str
    partitions: int
    reader: Reader
    codec: Codec
    entries: dict[str, Entry] = field(default_factory=dict, init=False)
    runs: dict[str, int] = field(default_factory=dict, init=False)
    lease: Lease | None = field(default=None, init=False)
    _read: dict[Partition, int] = field(default_factory=dict, init=False)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def refresh(self) -> None:
        """Read what was written since the last time. Raises Defer where a schema registry is away."""
        async with self._reading:
            await self._read_on()

    async def _read_on(self) -> None:
        ends = await self.reader.ends([Partition(self.topic, number) for number in range(self.partitions)])
        async for records in scan(self.reader, {name: range(self._read.get(name, 0), ends[name]) for name in ends}):
            for record in records:
                await self._take(record)
        self._read.update(ends)

    async def write(self, key: str, letter: Letter | None, partition: int | None = None) -> Outgoing:
        """Make the record of an entry; None takes it back. `partition` is the letter's own."""
        return await entry_record(self.codec, self.topic, self.partitions, partition, key, letter)

    def note(self, key: str, letter: Letter) -> None:
        """Take an entry for read that is written."""
        if letter.run and letter.job:
            self.runs[letter.job] = max(self.runs.get(letter.job, 0), letter.run)
        if "/" not in key:
            names = (intern(letter.state), intern(letter.replay), intern(letter.assignee))
            self.entries[key] = Entry(names[0], letter.at_ms, names[1], letter.replays, names[2])

    async def _take(self, record: Record) -> None:
        key = (record.key or b"").decode("utf-8", "replace")
        try:
            letter = None if record.value is None else await self.codec.decode("letters", Letter, record.value)
        except Reject:
            return  # of a version that is newer than this, or no entry at all
        if letter is None:
            self.entries.pop(key, None)
        else:
            self.note(key, letter)
        if key == LEASE:
            self.lease = _lease(letter, record.timestamp_ms) if letter is not None else None


def _lease(letter: Letter, renewed_ms: int) -> Lease:
    return Lease(letter.assignee, letter.replay, letter.operator, letter.at_ms, renewed_ms)

"""What was done about dead letters: the compacted state topic, read whole, with no more kept than is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import get_args

from pipeline.core.errors import Reject
from pipeline.core.letter import LetterHead
from pipeline.core.letter_state import OPEN, LetterState, State
from pipeline.core.payloads import Letter
from pipeline.core.ports import Codec, Reader
from pipeline.core.record import Outgoing, Partition, Record
from pipeline.ops.log_scan import Shelf, scan, take_snapshot
from pipeline.telemetry import logs

NOUN = "letters"
LEASE = "replay/current"
RUN = "run/"
_STATES: frozenset[str] = frozenset(get_args(State))


def run_key(job: str) -> str:
    """Spell the key under which the highest run of a job is kept."""
    return f"{RUN}{job}"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who replays: `holder` is unique to a process. Times are epoch milliseconds; it is renewed again and again."""

    holder: str
    replay: str
    operator: str
    since_ms: int
    renewed_ms: int


class LetterStates:
    """The state of every letter, as of the topic's end when it was read. A letter of which nothing is told is open.

    A million letters take 150 MB: of each its id in 16 bytes, and one of few values, unless they are `timed`. `runs`
    has the highest run of each job that was done again, and `lease` who replays just now.
    """

    def __init__(self, *, timed: bool = False) -> None:
        """Know of nothing."""
        self.runs: dict[str, int] = {}
        self.lease: Lease | None = None
        self._timed = timed
        self._states: dict[bytes, LetterState] = {}
        self._shared: dict[LetterState, LetterState] = {}

    def __len__(self) -> int:
        """Count the letters of which something is told."""
        return len(self._states)

    def of(self, head: LetterHead) -> LetterState:
        """Tell what was done about a letter."""
        return self.of_id(head.id) if self._states else OPEN

    def of_id(self, letter: str) -> LetterState:
        """Tell what was done about the letter of this id."""
        return self._states.get(_short(letter), OPEN)

    def fold(self, key: str, entry: Letter | None, written_ms: int = 0) -> None:
        """Take in one entry; None takes back what stands under its key. What does not fit its key changes nothing."""
        if key == LEASE:
            self.lease = _lease(entry, written_ms) if entry is not None and entry.state == "replaying" else None
        elif key.startswith(RUN):
            self._run(key.removeprefix(RUN), entry)
        elif entry is None:
            self._states.pop(_short(key), None)
        elif entry.state in _STATES and (short := _short(key)):
            told = state_of(entry, entry.at_ms if self._timed else 0)
            self._states[short] = told if self._timed else self._shared.setdefault(told, told)

    def _run(self, job: str, entry: Letter | None) -> None:
        if entry is None:
            self.runs.pop(job, None)
        elif entry.state == "rerun":
            self.runs[job] = max(entry.run, self.runs.get(job, 0))


def _lease(entry: Letter, renewed_ms: int) -> Lease:
    return Lease(entry.assignee, entry.replay, entry.operator, entry.at_ms, renewed_ms)


def state_of(entry: Letter | None, at_ms: int = 0) -> LetterState:
    """Tell the state that an entry says; open for none."""
    if entry is None or entry.state in {"rerun", "replaying"}:
        return OPEN
    state: State = entry.state  # type: ignore[assignment]  # the two others are none of a letter
    return LetterState(state, intern(entry.assignee), intern(entry.replay), entry.replays, at_ms)


def _short(letter: str) -> bytes:
    try:
        return bytes.fromhex(letter.replace("-", ""))
    except ValueError:
        return b""


async def read_states(
    reader: Reader, shelf: Shelf, codec: Codec, topic: str, numbers: Collection[int] | None = None
) -> LetterStates:
    """Read what the state topic says, of letters on partitions of these `numbers` alone where any are given.

    It may be missing: then all letters are open.
    """
    states, bounds = LetterStates(), await take_snapshot(reader, shelf, [topic])
    if numbers is not None:
        bounds = bounds.only({number % max(len(bounds.ends), 1) for number in numbers})
    await _fold(reader, bounds.spans, codec, states)
    return states


@dataclass(slots=True)
class Book:
    """The states on `topic`, of all of its `partitions`, for who goes on reading. Nothing is known before `refresh`."""

    topic: str
    partitions: int
    reader: Reader
    codec: Codec
    states: LetterStates = field(default_factory=lambda: LetterStates(timed=True), init=False)
    _read: dict[Partition, int] = field(default_factory=dict, init=False)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def refresh(self) -> None:
        """Read what was written since the last time. Raises Defer where a schema registry is away."""
        async with self._reading:
            ends = await self.reader.ends([Partition(self.topic, number) for number in range(self.partitions)])
            spans = {name: range(self._read.get(name, 0), end) for name, end in ends.items()}
            await _fold(self.reader, spans, self.codec, self.states)
            self._read.update(ends)

    async def write(self, key: str, letter: Letter | None, partition: int | None = None) -> Outgoing:
        """Make the record of an entry; None takes it back. `partition` is the letter's own."""
        return await entry_record(self.codec, self.topic, self.partitions, partition, key, letter)


async def _fold(reader: Reader, spans: Mapping[Partition, range], codec: Codec, states: LetterStates) -> None:
    async for records in scan(reader, spans):
        for record in records:
            try:
                states.fold(_key(record), await _decoded(codec, record), record.timestamp_ms)
            except Reject as unfit:
                _ignored(record, unfit)


async def read_entries(
    reader: Reader, shelf: Shelf, codec: Codec, topic: str, wanted: Collection[str]
) -> Mapping[str, list[Letter | None]]:
    """Read all that is kept of what was ever done about the letters `wanted`, by id, oldest first."""
    keys = {one.encode() for one in wanted}
    found: dict[str, list[Letter | None]] = {one: [] for one in wanted}
    async for records in scan(reader, (await take_snapshot(reader, shelf, [topic])).spans):
        for record in records:
            if record.key in keys:
                try:
                    found[_key(record)].append(await _decoded(codec, record))
                except Reject as unfit:
                    _ignored(record, unfit)
    return found


async def entries_of_gone(reader: Reader, shelf: Shelf, codec: Codec, topic: str, before_ms: int) -> list[Outgoing]:
    """Make the records that take back the entries, older than `before_ms`, of letters whose records are gone.

    Nothing else would ever take them back: the topic would grow with every letter that was ever worked on.
    """
    gone: dict[bytes, int] = {}
    begins: dict[str, Mapping[Partition, int]] = {}
    async for records in scan(reader, (await take_snapshot(reader, shelf, [topic])).spans):
        for record in records:
            gone.pop(record.key or b"", None)
            try:
                entry = await _decoded(codec, record)
            except Reject:
                continue  # of a newer version, perhaps: not ours to take back
            if entry is None or not entry.topic or entry.at_ms >= before_ms or record.key is None:
                continue
            if entry.topic not in begins:
                begins[entry.topic] = await shelf.begin_offsets([entry.topic])
            if entry.offset < begins[entry.topic].get(Partition(entry.topic, entry.partition), 0):
                gone[record.key] = record.partition
    return [Outgoing(topic, key, None, (), number) for key, number in gone.items()]


async def entry_record(
    codec: Codec, topic: str, partitions: int, partition: int | None, key: str, entry: Letter | None
) -> Outgoing:
    """Spell an entry; None takes it back. Of a letter on `partition` it goes to that number, modulo `partitions`.

    Whoever decides about a letter must be read after whoever decided before, so its entries share a partition. An
    entry about no letter goes by its key.
    """
    value = None if entry is None else await codec.encode(NOUN, entry)
    number = None if partition is None else partition % max(partitions, 1)
    return Outgoing(topic, key.encode("ascii", "replace"), value, (), number)


async def _decoded(codec: Codec, record: Record) -> Letter | None:
    return None if record.value is None else await codec.decode(NOUN, Letter, record.value)


def _key(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")


def _ignored(record: Record, unfit: Reject) -> None:
    logs.get().warning(f"{record.position} is ignored: {unfit.reason}", action="letters.ignored")

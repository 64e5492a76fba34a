"""Exactly once: what records lead to goes into transactions, together with the offsets that say so (design 6.9).

A group commit: what was handled since the last transaction becomes the next one. Nothing is written before, so a
transaction is open for milliseconds, and an aborted one is simply written again, without what has left meanwhile. Until
a transaction is committed its items are unsettled; in its own offsets they count as settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.core.errors import Halt
from pipeline.core.offset_map import Progress, read, spell
from pipeline.core.ports import Batch, Consumer, NotCommitted, RecordTooLarge, Transactions
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.runtime.assignment import Assignment
from pipeline.runtime.settle import Settler
from pipeline.runtime.work import Item, Part
from pipeline.telemetry import logs

GROUP_SECONDS = 0.1
"""The least time between the beginnings of two transactions: many small ones stall the coordinator."""
GATHER_SECONDS = 0.005
"""What comes after a pause waits so long for company."""
AGAIN_SECONDS = 0.05
RELEASE_SECONDS = 0.2
"""The longest that a revocation is held up."""
MOST_RECORDS = 10_000
MOST_BYTES = 16 * 1024 * 1024
"""With so much waiting, a transaction begins at once, and items keep their room in the window."""
SURE_RANGES = 400
"""An offset map of so many ranges has room for all of them; a larger one is read back, to see what was left out."""

Refusals = Sequence[tuple[Outgoing, Exception]]


@dataclass(slots=True)
class Entry:
    """What one item leads to. `refused` is what the cluster will not take of it, and the rest was taken without."""

    item: Item
    records: Sequence[Outgoing]
    ended: Callable[[Item, Refusals], None]
    refused: list[tuple[Outgoing, Exception]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What its records weigh."""
        return sum(len(record.value or b"") + len(record.key or b"") for record in self.records)

    def end(self) -> None:
        """Tell the settler how it ended."""
        self.item.owed = 0
        self.ended(self.item, self.refused)


class GroupCommit:
    """Gathers entries and commits them in transactions, one after the other. Listens to the consumer's rebalances."""

    def __init__(
        self,
        assignment: Assignment,
        consumer: Consumer,
        transactions: Transactions,
        committed: Callable[[], None],
        halt: Callable[[Halt], None],
    ) -> None:
        """Begin with nothing. `committed` hears of each commit, `halt` of what makes going on impossible."""
        self._assignment = assignment
        self._consumer = consumer
        self._transactions = transactions
        self._committed = committed
        self._halt = halt
        self._waiting: list[Entry] = []
        self._count = 0
        self._bytes = 0
        self._under_way: list[Entry] = []
        self._parts: dict[Part, Commit] = {}
        self._busy = False
        self._idle = asyncio.Event()
        self._failing = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = -GROUP_SECONDS

    # -------------------------------------------------------------- the settler's side

    def add(self, entry: Entry) -> None:
        """Take an item's records for the next transaction."""
        self._take([entry])
        if self._full:
            self._schedule(0.0)
        else:
            # It is done with, but for the transaction: its room is for the next one.
            entry.item.leave()
            if self._timer is None:
                self._schedule(GATHER_SECONDS)

    def turn(self) -> None:
        """Commit what has no records: positions past markers, and items that led to nothing."""
        if self._timer is None and not self._busy:
            self._begin()

    # -------------------------------------------------------------- rebalances

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        """Begin anew with each partition."""
        self._assignment.assigned(partitions)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        """Begin nothing more for partitions that leave in a moment."""
        return self._assignment.leaving(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Commit what is done, if that takes no longer than `RELEASE_SECONDS`, and let partitions go.

        A transaction that takes longer may still be committed: whoever gets the partitions learns first how it ended.
        """
        if not self._closed:
            self._finish(RELEASE_SECONDS)
        self._assignment.lost(partitions)
        return {}

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions. A transaction under way is refused for its member, unless it was there before the loss."""
        self._assignment.lost(partitions)

    async def close(self, seconds: float) -> None:
        """Commit the last transaction, in `seconds` at most; no other follows."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._busy or self._begin():
                    await self._idle.wait()
                    await asyncio.sleep(GATHER_SECONDS if self._failing else 0)
        self._closed = True
        self._cancel()

    # -------------------------------------------------------------- transactions

    def _finish(self, seconds: float) -> None:
        """Block for the end of the transaction under way, and of one more, which is tried twice."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        for _ in range(2 + self._busy):
            if not (self._busy or self._begin()) or not self._transactions.wait(max(0.0, end - clock())):
                return

    def _begin(self) -> bool:
        """Begin the next transaction; False where there is nothing to commit, or nobody to commit as."""
        self._cancel()
        if self._busy or self._closed:
            return False
        waiting = [entry for entry in self._waiting if entry.item.part.alive]
        commits = self._commits(waiting)
        member = self._consumer.membership() if commits else None
        self._waiting, self._count, self._bytes = [], 0, 0
        if member is None:
            self._take(waiting)
            if waiting:
                self._schedule(AGAIN_SECONDS)
            return False
        # What the offsets do not say must not be written: it would be written again.
        self._take([entry for entry in waiting if entry.item.part not in commits])
        self._under_way = [entry for entry in waiting if entry.item.part in commits]
        self._parts, self._busy = commits, True
        self._idle.clear()
        self._last = asyncio.get_running_loop().time()
        records = [record for entry in self._under_way for record in entry.records]
        self._transactions.begin(Batch(records, {part.name: at for part, at in commits.items()}, member), self._ended)
        return True

    def _ended(self, error: Exception | None) -> None:
        entries, self._under_way = self._under_way, []
        parts, self._parts, self._busy = self._parts, {}, False
        self._idle.set()
        first, self._failing = not self._failing, error is not None
        if error is None:
            for part, commit in parts.items():
                part.committed = commit
            for entry in entries:
                entry.end()
            self._committed()
            if self._waiting:
                self._schedule(0.0)
        elif isinstance(error, NotCommitted):
            write = logs.get().info if first else logs.get().debug
            write(f"a transaction of {len(entries)} records did not take place: {error}", action="aborted")
            self._again(entries, error.refused)
        else:
            self._again(entries, {})
            self._halt(error if isinstance(error, Halt) else Halt(f"transactions cannot go on: {error}"))

    def _again(self, entries: Sequence[Entry], refused: Mapping[int, Exception]) -> None:
        """Put entries back in front, in their order, but for those whose end was refused."""
        later, self._waiting, self._count, self._bytes = self._waiting, [], 0, 0
        index = 0
        ended: list[Entry] = []
        for entry in entries:
            numbers = range(index, index + len(entry.records))
            index = numbers.stop
            if any(number in refused for number in numbers) and not _goes_on(entry, numbers, refused):
                ended.append(entry)
            else:
                self._take([entry])
        self._take(later)
        for entry in (one for one in ended if one.item.part.alive):
            entry.end()
        if self._waiting:
            self._schedule(0.0 if refused else AGAIN_SECONDS)

    # -------------------------------------------------------------- parts

    def _commits(self, waiting: Sequence[Entry]) -> dict[Part, Commit]:
        """Return how far each part is with `waiting`, where that is new and its map can say it."""
        done = {entry.item for entry in waiting}
        frontiers = {part: part.frontier.supposing(done) for part in self._assignment.parts.values()}
        positions = self._consumer.positions([part.name for part, frontier in frontiers.items() if not len(frontier)])
        commits: dict[Part, Commit] = {}
        for part, frontier in frontiers.items():
            offset = frontier.offset(part.reading(positions.get(part.name)))
            if offset is None:
                continue
            settled = frontier.settled(offset)
            commit = Commit(offset, spell(offset, Progress(settled)))
            if commit != part.committed and (len(settled) <= SURE_RANGES or says(commit, settled)):
                commits[part] = commit
        return commits

    def _take(self, entries: Sequence[Entry]) -> None:
        self._waiting += entries
        self._count += sum(len(entry.records) for entry in entries)
        self._bytes += sum(entry.bytes for entry in entries)

    @property
    def _full(self) -> bool:
        return self._count >= MOST_RECORDS or self._bytes >= MOST_BYTES

    def _schedule(self, delay: float) -> None:
        """Begin the next transaction after `delay`, and not before its time unless there is too much to wait."""
        self._cancel()
        loop = asyncio.get_running_loop()
        when = loop.time() + delay if self._full else max(loop.time() + delay, self._last + GROUP_SECONDS)
        self._timer = loop.call_at(when, self._begin)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass(frozen=True, slots=True)
class GroupSettler(Settler):
    """Settles by transactions: what an outcome owes goes to `group` instead of a producer."""

    group: GroupCommit

    def tell_now(self, item: Item) -> None:
        """Leave what was told for the transaction that settles the item: a try that is undone tells nothing."""

    def _send(self, item: Item, end: str, records: Sequence[Outgoing]) -> None:
        records = self._owed(item, end, records)
        if not records:
            self.ledger.settled(item)
            return
        item.owes(len(records))
        self.group.add(Entry(item, records, self._acknowledged))


def _goes_on(entry: Entry, numbers: range, refused: Mapping[int, Exception]) -> bool:
    """Note what was refused of an entry; whether the rest of it is to be written all the same.

    So it is for a dead letter whose failure event is too large: the settler counts it as settled, untold.
    """
    records = list(entry.records)
    entry.refused += [(records[number - numbers.start], refused[number]) for number in numbers if number in refused]
    entry.records = [records[number - numbers.start] for number in numbers if number not in refused]
    told = all(isinstance(error, RecordTooLarge) for _, error in entry.refused)
    first = records[0] not in [record for record, _ in entry.refused]
    return entry.item.end == "dead_letter" and told and first


def says(commit: Commit, settled: Sequence[range]) -> bool:
    """Whether a commit's metadata name all of `settled`: a map that grows too long leaves its last ranges out."""
    return tuple(read(commit.offset, commit.metadata).settled) == tuple(settled)

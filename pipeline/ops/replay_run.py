"""The run of a replay: copies and their marks in transactions, at the rate asked for. May be killed anywhere.

Progress is what the book says: a copy and the mark of its letter are written together or not at all, so a run that is
begun again goes on where the last one ended, with neither loss nor repetition.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pipeline.core.errors import Defer
from pipeline.core.pace import Pace
from pipeline.core.ports import Reader, RecordTooLarge
from pipeline.core.record import Outgoing, Partition
from pipeline.ops.letter_states import Book
from pipeline.ops.log_scan import Progress, scan
from pipeline.ops.replay_journal import RENEW_SECONDS, Journal, Refused
from pipeline.ops.replay_plan import Plan
from pipeline.ops.replay_work import Steps, Work

DEFAULT_RATE = 100.0
MOST_RECORDS = 500
BATCH_SECONDS = 0.1
LOOK_SECONDS = 10.0
LOOK_RATE = 500.0
"""Up to this rate the book is read on while a replay runs, for what others do meanwhile; a quicker one is over soon."""


@dataclass(slots=True)
class Report:
    """What a run has done: `copies` were written, `replayed` letters marked, and others `quarantined` or `refused`."""

    copies: int = 0
    replayed: int = 0
    quarantined: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: bool = False

    def told(self) -> dict[str, object]:
        """Tell it as JSON."""
        return {
            "copies": self.copies,
            "replayed": self.replayed,
            "quarantined": self.quarantined,
            "refused": dict(self.refused),
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
        }

    def details(self) -> dict[str, str]:
        """Tell it to the audit."""
        held = {f"refused_{word}": str(count) for word, count in self.refused.items()}
        return {"replayed": str(self.replayed), "quarantined": str(self.quarantined), **held}


@dataclass(slots=True)
class Run:
    """One run of a plan. `stop`, once it is set, ends it after the transaction under way."""

    plan: Plan
    steps: Steps
    reader: Reader
    book: Book
    journal: Journal
    rate: float
    stop: asyncio.Event
    progress: Progress
    report: Report = field(default_factory=Report, init=False)
    _pace: Pace = field(init=False)
    _writing: asyncio.Task[None] | None = field(default=None, init=False)

    async def run(self, details: Mapping[str, str], *, resumed: bool = False, take_over: bool = False) -> Report:
        """Do what is planned, and say what was done. `details` go to the audit.

        Raises Busy before anything is done, TakenOver once another replay has begun, and Defer where a schema registry
        is away; what was done until then stays, and a run with the same id goes on.
        """
        clock = asyncio.get_running_loop().time
        await self.journal.begin("replay.resumed" if resumed else "replay.started", details, take_over=take_over)
        begun = clock()
        self._pace = Pace(self.rate, begun)
        try:
            self.report.stopped = not await self._all()
        except Defer as error:
            await self.journal.end("replay.stopped", {**self.report.details(), "why": error.reason})
            raise
        self.report.seconds = clock() - begun
        await self.journal.end("replay.stopped" if self.report.stopped else "replay.finished", self.report.details())
        return self.report

    async def _all(self) -> bool:
        try:
            async with aclosing(self._batches()) as batches:
                async for works in batches:
                    if not await self._hand_over(works):
                        return False
        finally:
            await self._written()
        return True

    async def _batches(self) -> AsyncGenerator[Sequence[Work], None]:
        size = max(1, min(MOST_RECORDS, round(self.rate * BATCH_SECONDS)))
        clock, pending = asyncio.get_running_loop().time, list[Work]()
        looked = clock()
        async with aclosing(scan(self.reader, self.steps.spans)) as scanned:
            async for records in scanned:
                for record in records:
                    step = await self.steps.of(record, self.journal.clock())
                    if isinstance(step, Work):
                        pending.append(step)
                    elif step:
                        self.report.refused[step] += 1
                    if len(pending) >= size:
                        yield pending
                        pending = []
                    if self.rate <= LOOK_RATE and clock() - looked > LOOK_SECONDS:
                        await self.book.refresh()
                        looked = clock()
        if pending:
            yield pending

    async def _hand_over(self, works: Sequence[Work]) -> bool:
        """Have a batch written once it is due, while the next one is made; False where the run was stopped."""
        await self._written()
        copies = sum(one.copy is not None for one in works)
        if not await self._turn(copies):
            return False
        self._pace.went(copies)
        self._writing = asyncio.create_task(self._write(works))
        return True

    async def _written(self) -> None:
        """Wait for the batch that is being written; raises as that did."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _write(self, works: Sequence[Work]) -> None:
        while works:
            records, owners = await self._records(works)
            try:
                await self.journal.write(records, _reached(works))
                break
            except Refused as refused:
                works = self._without(works, owners, refused)
        self._count(works)

    def _without(self, works: Sequence[Work], owners: Sequence[int], refused: Refused) -> Sequence[Work]:
        dropped = {owners[index]: why for index, why in refused.indexes.items() if index < len(owners)}
        if not dropped:
            raise refused
        for number, why in dropped.items():
            word = "too_large" if isinstance(why, RecordTooLarge) else "topic"
            self.report.refused[word] += works[number].letters
        return [one for number, one in enumerate(works) if number not in dropped]

    async def _turn(self, copies: int) -> bool:
        """Wait until so many may go, with the lease kept; False where the run is stopped."""
        clock = asyncio.get_running_loop().time
        while (wait := self._pace.wait(clock(), copies)) > 0 and not self.stop.is_set():
            try:
                async with asyncio.timeout(min(wait, RENEW_SECONDS)):
                    await self.stop.wait()
            except TimeoutError:
                if self.journal.due:
                    await self.journal.write((), {})
        return not self.stop.is_set()

    async def _records(self, works: Sequence[Work]) -> tuple[list[Outgoing], list[int]]:
        """Return the records of all, and of each whose it is."""
        records: list[Outgoing] = []
        owners: list[int] = []
        for number, work in enumerate(works):
            marks = [await self.book.write(mark.key, mark.letter, mark.partition) for mark in work.marks]
            made = [work.copy, *marks] if work.copy is not None else marks
            records += made
            owners += [number] * len(made)
        return records, owners

    def _count(self, works: Sequence[Work]) -> None:
        report = self.report
        report.copies += sum(one.copy is not None for one in works)
        report.replayed += sum(one.letters for one in works if one.copy is not None)
        report.quarantined += sum(one.letters for one in works if one.copy is None)
        self.progress("letters replayed", report.replayed, self.plan.tally.going)


def _reached(works: Sequence[Work]) -> Mapping[Partition, int]:
    """Tell how far was read: the next offset of each partition."""
    return {Partition(one.place.topic, one.place.partition): one.place.offset + 1 for one in works}

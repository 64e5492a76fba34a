"""The index made anew while everything goes on: copy, follow, compare, close, switch.

Why nothing is missing afterwards: a change that was ever said to be in the index was said so while nothing was closing,
so it stands below the ends that are looked up after `close`, and was in the old collection. What topics no longer have
was in the old collection when the copy began; all else is read from them. What was not said to be in the index by then
is said so by writers only after they have seen the switch, and written it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from pipeline.core.errors import Defer, PipelineError, Retry
from pipeline.core.payloads import Document
from pipeline.core.ports import Reader
from pipeline.core.record import Partition, Record
from pipeline.ops.index_apply import Lanes, Say, Tally

T = TypeVar("T")

BEAT_SECONDS = 2.0
FETCH_SECONDS = 0.5
FETCH = 500
ROUNDS = 10
"""How often the collections are compared before writers are asked to wait; what is left then is done while they do."""
LAST_ROUNDS = 5
"""How often they are compared while writers wait."""
REOPEN_SECONDS = 10.0
FEW = 64
"""So few documents that differ are the changes of this very moment."""

Progress = Callable[[str, int, int], None]
Ends = Mapping[Partition, int]


class Page(Protocol):
    """Some documents of the old index; see `clients.passage_copy.Page`."""

    @property
    def seen(self) -> int:
        """How many there were."""
        ...

    @property
    def lacking(self) -> Sequence[Sequence[Document]]:
        """What the new collection has to be told of those it lacks."""
        ...

    @property
    def moving(self) -> int:
        """How many were being changed while they were read."""
        ...

    @property
    def further(self) -> Any:
        """Where the next page begins; None after the last."""
        ...


class Copy(Protocol):
    """Compares the old collection with the new one."""

    async def total(self) -> int:
        """Count what there is to compare."""
        ...

    async def page(self, offset: Any = None, /) -> Page:
        """Compare some of it."""
        ...


class Target(Protocol):
    """The new collection, and the switch to it; see `clients.passage_rebuild.Rebuild`."""

    @property
    def names(self) -> tuple[str, str]:
        """The names of the old collection and the new one."""
        ...

    @property
    def copy(self) -> Copy:
        """What compares the two."""
        ...

    async def beat(self) -> None:
        """Show that this run is alive. Raises Halt where it is not the owner any more."""
        ...

    async def close(self) -> None:
        """Let writers wait."""
        ...

    async def reopen(self) -> None:
        """Let writers go on with what is live."""
        ...

    async def switch(self) -> None:
        """Make the new collection live."""
        ...

    async def documents(self) -> tuple[Mapping[str, tuple[int, int]], Mapping[str, tuple[int, int]]]:
        """Count the documents and the removed ones of each source, in the old collection and in the new one."""
        ...


class RebuildError(PipelineError):
    """The new collection does not hold what the old one holds. Nothing was switched."""


@dataclass
class Stream:
    """Everything the index stage reads, from the beginning and without its group; `read` decodes and applies."""

    reader: Reader
    partitions: Callable[[], Awaitable[Collection[Partition]]]
    read: Callable[[Record], Awaitable[None]]
    records: int = 0
    _followed: set[Partition] = field(default_factory=set)

    async def to_the_end(self, lanes: Lanes, progress: Progress) -> None:
        """Read to where the topics end now, and wait until all of it is applied."""
        found = await self.partitions()
        for partition in set(found) - self._followed:
            self.reader.follow(partition, 0)
            self._followed.add(partition)
        ends = await self.reader.ends(found)
        while left := _left(ends, self.reader.positions()):
            progress("records of the topics", self.records, self.records + left)
            for record in await self.reader.fetch(FETCH, FETCH_SECONDS):
                key = record.key if record.key is not None else record.position
                await lanes.add(key, partial(self.read, record))
                self.records += 1
        progress("records of the topics", self.records, self.records)
        await lanes.idle()
        await lanes.again()


def _left(ends: Ends, positions: Ends) -> int:
    return sum(max(0, end - positions.get(partition, 0)) for partition, end in ends.items())


@dataclass(frozen=True)
class Report:
    """What a rebuild did. Counts are of documents, records, changes, embedding tokens; times in seconds."""

    old: str
    new: str
    copied: int
    records: int
    tokens: int
    skipped: Mapping[str, int]
    unknown: int
    documents: Mapping[str, int]
    closed_seconds: float
    seconds: float


@dataclass
class IndexRebuild:
    """One rebuild, once its new collection is there."""

    target: Target
    stream: Stream
    apply: Callable[[Document], Awaitable[None]]
    lanes: Lanes
    tally: Tally
    say: Say
    progress: Progress
    copied: int = 0

    async def run(self) -> Report:
        """Fill the new collection and switch to it.

        Raises RebuildError where the new collection lacks what the old one has, Halt where this run was replaced or
        aborted; then the old one stays live.
        """
        begun = time.monotonic()
        closed = await _beside(self._work(), self._beats())
        old, new = self.target.names
        _, documents = await self.target.documents()
        return Report(
            old=old,
            new=new,
            copied=self.copied,
            records=self.stream.records,
            tokens=self.tally.tokens,
            skipped=dict(self.tally.skipped),
            unknown=len(self.tally.unknown),
            documents={source: count for source, (count, _) in sorted(documents.items())},
            closed_seconds=round(time.monotonic() - closed, 3),
            seconds=round(time.monotonic() - begun, 3),
        )

    async def _work(self) -> float:
        lacking = before = await self._compare()
        for _ in range(ROUNDS):
            await self.stream.to_the_end(self.lanes, self.progress)
            lacking = await self._compare()
            if lacking <= FEW or lacking >= before:
                break
            before = lacking
        closed = time.monotonic()
        try:
            await self._patiently(self.target.close)
            await self._finish(certain=not lacking and not self.tally.skipped)
            await self._patiently(self.target.switch)
        except BaseException:
            await asyncio.shield(self._reopen())
            raise
        return closed

    async def _reopen(self) -> None:
        try:
            async with asyncio.timeout(REOPEN_SECONDS):
                await self._patiently(self.target.reopen)
        except (PipelineError, TimeoutError):
            self.say(
                "writers still wait for this rebuild: run `pipeline index rebuild` again, or end it with --abort, once "
                "the index answers"
            )

    async def _finish(self, *, certain: bool) -> None:
        """Bring the new collection up to date while writers wait.

        Who writes may have begun before; so what differs is copied and looked at again. Where counts are equal and
        nothing was lacking, that is enough. Where they are not, the stage may only be behind the topics: marks tell.
        """
        lacking = Counter[str]()
        for _ in range(LAST_ROUNDS):
            await self.stream.to_the_end(self.lanes, self.progress)
            old, new = await self._patiently(self.target.documents)
            if certain and old == new:
                return
            lacking.clear()
            if not await self._compare(lacking):
                return
        named = ", ".join(f"{source} ({number})" for source, number in sorted(lacking.items()))
        reasons = "; ".join(f"{number} times: {why}" for why, number in self.tally.skipped.most_common(3))
        raise RebuildError(
            f"the new collection lacks documents that the old one has, of {named}, so nothing was switched; "
            f"{reasons or 'what was written meanwhile is one reason'}. Mend that and run `pipeline index rebuild` again"
        )

    async def _compare(self, named: Counter[str] | None = None) -> int:
        """Look at all documents of the old collection, and apply what the new one lacks; returns how many those are."""
        total, seen, lacking, offset = await self._patiently(self.target.copy.total), 0, 0, None
        while True:
            page = await self._patiently(partial(self.target.copy.page, offset))
            seen, lacking = seen + page.seen, lacking + len(page.lacking) + page.moving
            for changes in page.lacking:
                if named is not None:
                    named[changes[0].source] += 1
                await self.lanes.add((changes[0].source, changes[0].id), partial(self._apply, changes))
            self.copied += len(page.lacking)
            self.progress("documents of the old collection", seen, max(total, seen))
            if (offset := page.further) is None:
                break
        await self.lanes.idle()
        return lacking

    async def _apply(self, changes: Sequence[Document]) -> None:
        for change in changes:
            await self.apply(change)

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._patiently(self.target.beat)

    async def _patiently(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for an index that is away as long as it takes, and say so."""
        while True:
            try:
                return await call()
            except (Defer, Retry) as later:
                self.say(f"waiting: {later.reason}")
                await asyncio.sleep(BEAT_SECONDS)


async def _beside(work: Coroutine[Any, Any, T], endless: Coroutine[Any, Any, None]) -> T:
    """Do both; what fails first ends the other."""
    doing, beating = asyncio.ensure_future(work), asyncio.ensure_future(endless)
    try:
        await asyncio.wait({doing, beating}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        beating.cancel()
        if not doing.done():
            doing.cancel()
        await asyncio.gather(doing, beating, return_exceptions=True)
    if not beating.cancelled() and (failure := beating.exception()):
        raise failure
    return doing.result()

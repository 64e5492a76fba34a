"""Comparing sources with the index, and mending what differs.

A first look at everything finds suspects: while changes are on their way, most of them are none. They are looked at
again after a while: at the index first, and then at the row, for the index is never ahead of the database. Only what
still differs, and of which neither row nor index has moved in between, is a difference.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from typing import TypeVar

from pipeline.core.audit_ports import Cut, IndexEntries, IndexEntry, SourceRow, SourceRows
from pipeline.core.errors import Retry
from pipeline.core.index_ports import PassageStore
from pipeline.ops.index_differences import Kind, TableOf, Wish, judge, mend, wish

T = TypeVar("T")

TOGETHER = 32
"""Documents that are looked at again, or mended, at once."""
READ_TOGETHER = 200
"""Documents whose points are read by one request."""
MOST_SUSPECTS = 50_000
"""So many wait to be looked at again; then they are, before the scan goes on."""
LOOKS = 3
"""How often a document that moves is looked at again before it is left for the next audit."""

Progress = Callable[[str, int, int], None]
"""Told what is being read, how much of it is done, and of how much, as far as that is known."""


@dataclass(frozen=True, slots=True)
class AuditPorts:
    """What an audit works on. `cut` is what the index makes of a document."""

    index: IndexEntries
    store: PassageStore
    cut: Cut
    sleep: Callable[[float], Awaitable[object]]
    progress: Progress


@dataclass(frozen=True, slots=True)
class Options:
    """How to audit: all, or a `sample` of so many rows and documents of each source; with what delay; mending or not.

    `settle` is in seconds. Of each kind and source no more than `show` differences are kept.
    """

    sample: int | None = None
    settle: float = 10.0
    fix: bool = False
    show: int = 20


@dataclass(frozen=True, slots=True)
class Audited:
    """A source: its table's rows, or nothing but what the index has of it."""

    source: str
    rows: SourceRows | None = None
    versioned: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One document that differs. `fixed` is None where nothing was tried; `note` is why it could not be mended."""

    source: str
    document: str
    kind: Kind
    why: str
    fixed: bool | None = None
    note: str = ""


@dataclass(slots=True)
class Findings:
    """What an audit found in one source. `documents` are those that the index holds, as far as it was looked at.

    `refused` rows would be refused, and are not in the index, as is right; `unknown` ones could not be compared, and
    `moving` documents changed whenever they were looked at.
    """

    source: str
    mapped: bool
    rows: int = 0
    documents: int = 0
    refused: int = 0
    unknown: int = 0
    moving: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    mended: Counter[Kind] = field(default_factory=Counter)
    shown: list[Difference] = field(default_factory=list)

    @property
    def fixed(self) -> int:
        """How many differences were mended."""
        return self.mended.total()

    @property
    def open(self) -> int:
        """How many differences there are that were not mended."""
        return self.kinds.total() - self.fixed

    def add(self, one: Difference, show: int) -> None:
        """Count a difference, and keep it as long as there are few."""
        self.kinds[one.kind] += 1
        self.mended[one.kind] += one.fixed is True
        if self.kinds[one.kind] <= show:
            self.shown.append(one)


class Seen:
    """A set of names in eight bytes each: a million take 8 MB. One of them in 10^13 may be taken for another."""

    def __init__(self) -> None:
        """Begin with none."""
        self._digests = array("Q")
        self._sorted = True

    def add(self, name: str) -> None:
        """Remember a name."""
        self._digests.append(_digest(name))
        self._sorted = False

    def __contains__(self, name: str) -> bool:
        if not self._sorted:
            self._digests = array("Q", sorted(self._digests))
            self._sorted = True
        wanted = _digest(name)
        at = bisect_left(self._digests, wanted)
        return at < len(self._digests) and self._digests[at] == wanted


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class _Sight:
    """One document as it was seen, with how it differs; `look` is another number once anything has moved."""

    wanted: Wish | None
    entry: IndexEntry | None
    found: tuple[Kind, str] | None

    @property
    def look(self) -> int:
        return hash((self.wanted.look if self.wanted else None, self.entry.stamp if self.entry else None))


class Audit:
    """Audits one source."""

    def __init__(self, audited: Audited, ports: AuditPorts, options: Options) -> None:
        """Compare `audited` with the index."""
        self._source = audited.source
        self._rows = audited.rows
        self._table = TableOf(audited.source, audited.versioned) if audited.rows else None
        self._ports = ports
        self._index = ports.index
        self._options = options
        self._rows_seen, self._marks_seen = Seen(), Seen()
        self._suspects: dict[str, int] = {}
        self.findings = Findings(audited.source, audited.rows is not None)

    async def run(self) -> Findings:
        """Look at all of it. Raises Defer where a side is away, Retry where one errs."""
        if self._rows:
            await self._scan_rows(self._rows)
        if self._options.sample is None:
            await self._scan_marks()
            await self._scan_chunks()
        else:
            drawn = await self._index.draw(self._source, self._options.sample)
            await self._look_up([name for name in drawn if name not in self._rows_seen])
        await self._settle()
        return self.findings

    # ---- the first look ----------------------------------------------------------------------------------------------
    async def _scan_rows(self, rows: SourceRows) -> None:
        sample, expected = self._options.sample, await rows.count()
        total = expected if sample is None else min(expected, sample)
        # Closed, whatever happens: it holds a connection, without which its pool could not be closed.
        async with aclosing(rows.pages() if sample is None else _once(await rows.some(sample))) as pages:
            async for page in pages:
                for part in _parts(page, READ_TOGETHER):
                    await self._compare(part)
                self.findings.rows += len(page)
                done = self.findings.rows
                self._ports.progress(f"rows of {self._source}", done, max(total, done))

    async def _compare(self, rows: Sequence[SourceRow]) -> None:
        names = [row.id for row in rows if row.id]
        entries = await self._index.entries(self._source, names)
        for row in rows:
            sight = self._sight(row, entries.get(row.id))
            self._rows_seen.add(row.id)
            living = sight.entry is not None and sight.entry.living
            self.findings.documents += living
            if sight.wanted and sight.wanted.document is None and not living:
                self.findings.refused += not sight.wanted.unknown
            self.findings.unknown += sight.wanted is not None and sight.wanted.unknown
            if row.id and sight.found:
                await self._suspect(row.id, sight)

    async def _scan_marks(self) -> None:
        """Look at the marks of which no row was seen."""
        total, done, strange = await self._index.marked(self._source), 0, list[str]()
        async for key in self._index.keys(self._source):
            done += 1
            self._marks_seen.add(key.document)
            if key.document not in self._rows_seen:
                strange.append(key.document)
            if len(strange) == READ_TOGETHER:
                await self._look_up(strange)
                strange = []
            self._ports.progress(f"documents of {self._source}", done, max(total, done))
        await self._look_up(strange)

    async def _scan_chunks(self) -> None:
        """Look at the chunks whose document has neither row nor mark."""
        async for page in self._index.chunked(self._source):
            strange = [name for name in dict.fromkeys(page) if name not in self._marks_seen]
            await self._look_up([name for name in strange if name not in self._rows_seen])

    async def _look_up(self, names: Sequence[str]) -> None:
        for part in _parts(names, READ_TOGETHER):
            for name, sight in (await self._sights(part)).items():
                self.findings.documents += sight.entry is not None and sight.entry.living
                if sight.found:
                    await self._suspect(name, sight)

    async def _suspect(self, name: str, sight: _Sight) -> None:
        self._suspects[name] = sight.look
        if len(self._suspects) >= MOST_SUSPECTS:
            await self._settle()

    # ---- looking again -----------------------------------------------------------------------------------------------
    async def _settle(self) -> None:
        suspects, self._suspects = self._suspects, {}
        for _ in range(LOOKS):
            if not suspects:
                return
            await self._ports.sleep(self._options.settle)
            moved: dict[str, int] = {}
            for part in _parts([*suspects], TOGETHER):
                sights = {name: sight for name, sight in (await self._sights(part)).items() if sight.found}
                moved |= {name: sight.look for name, sight in sights.items() if sight.look != suspects[name]}
                await asyncio.gather(*(self._differs(name, one) for name, one in sights.items() if name not in moved))
            suspects = moved
        self.findings.moving += len(suspects)

    async def _differs(self, name: str, sight: _Sight) -> None:
        kind, why = sight.found or ("torn", "")
        found = Difference(self._source, name, kind, why)
        if self._options.fix:
            found = await self._mended(found, sight)
        self.findings.add(found, self._options.show)

    async def _mended(self, found: Difference, sight: _Sight) -> Difference:
        name, store = found.document, self._ports.store
        todo = mend(sight.wanted, sight.entry, await self._index.emptied(self._source), self._table)
        if todo.refusal:
            return replace(found, fixed=False, note=todo.refusal)
        try:
            if todo.discard:
                await self._index.discard(self._source, name, surplus=todo.discard == "surplus")
            if todo.document and todo.document.deleted:
                await store.remove(todo.document)
            elif todo.document:
                await store.replace(todo.document, todo.chunks)
        except Retry as error:
            return replace(found, fixed=False, note=error.reason)
        left = (await self._sights([name]))[name].found
        return replace(found, fixed=left is None, note=f"it still differs: {left[0]}, {left[1]}" if left else "")

    async def _sights(self, names: Sequence[str]) -> Mapping[str, _Sight]:
        """Look at documents as they are now: at the index first."""
        entries = await self._index.entries(self._source, names)
        rows = await asyncio.gather(*map(self._row, names))
        return {name: self._sight(row, entries.get(name)) for name, row in zip(names, rows, strict=True)}

    async def _row(self, name: str) -> SourceRow | None:
        return await self._rows.one(name) if self._rows else None

    def _sight(self, row: SourceRow | None, entry: IndexEntry | None) -> _Sight:
        wanted = wish(row, self._ports.cut, self._index.content) if row else None
        return _Sight(wanted, entry, judge(wanted, entry, mapped=self._table is not None))


async def audit(wanted: Iterable[Audited], ports: AuditPorts, options: Options) -> Sequence[Findings]:
    """Audit sources, one after the other. Raises Defer where a side is away, Retry where one errs."""
    return [await Audit(one, ports, options).run() for one in wanted]


async def _once(page: Sequence[SourceRow]) -> AsyncGenerator[Sequence[SourceRow], None]:
    yield page


def _parts(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part

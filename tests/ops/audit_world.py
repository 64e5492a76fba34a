"""A table of rows in memory, and an index to hold it against."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pipeline.clients import passage_points as points
from pipeline.clients.passage_entries import PassageEntries
from pipeline.clients.passage_store import PassageKeeper
from pipeline.core.audit_ports import SourceRow
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document
from pipeline.ops.index_audit import Audit, Audited, AuditPorts, Findings, Options
from tests.clients.passage_world import BM25, SOURCE, Engine, place_on


class Index(PassageKeeper, PassageEntries):
    """What writes and what an audit reads, on one engine."""

    def __init__(self, engine: Engine) -> None:
        place = place_on(engine)
        PassageKeeper.__init__(self, place, BM25)
        PassageEntries.__init__(self, place)


def row(name: str, body: str = "", **more: object) -> SourceRow:
    """A row whose document has this body."""
    told = {"tenant": "acme", "title": "Hours", "version": 0} | more
    return SourceRow(name, Document.model_validate({"source": SOURCE, "id": name, "body": body, **told}))


def cut(document: Document) -> tuple[Document, Sequence[Chunk]]:
    """Each line of the body is a chunk."""
    return document, [Chunk(number, line) for number, line in enumerate(document.body.splitlines())]


@dataclass
class Rows:
    """A table; `pages` shows what it held when the reading began."""

    held: dict[str, SourceRow] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reading: bool = False

    def put(self, *rows: SourceRow) -> None:
        """Insert rows, or change them."""
        self.held |= {one.id: one for one in rows}

    async def prepare(self) -> None:
        """Everything can be read."""

    async def count(self) -> int:
        return len(self.held)

    async def pages(self) -> AsyncGenerator[Sequence[SourceRow], None]:
        self.reading = True
        try:
            for one in list(self.held.values()):
                yield [one]
        finally:
            self.reading = False

    async def some(self, number: int) -> Sequence[SourceRow]:
        return list(self.held.values())[:number]

    async def one(self, document: str) -> SourceRow | None:
        self.asked.append(document)
        return self.held.get(document)


@dataclass
class World:
    """A table and an index, and an audit of them. `meanwhile` is done while an audit waits."""

    engine: Engine = field(default_factory=Engine)
    rows: Rows = field(default_factory=Rows)
    waited: list[float] = field(default_factory=list)
    told: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = Index(self.engine)

    async def meanwhile(self) -> None:
        """Nothing, unless a test says otherwise."""

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        await self.meanwhile()

    async def fill(self, version: int = 7) -> None:
        """Write all rows to the index, as the stage does."""
        for one in self.rows.held.values():
            if one.document:
                await self.store(one.document.model_copy(update={"version": version}))

    async def store(self, document: Document) -> None:
        """Write one state of a document."""
        await self.index.replace(*cut(document))

    async def audit(self, *, mapped: bool = True, versioned: bool = False, **options: object) -> Findings:
        """Audit the source."""
        chosen = Options(**options)  # type: ignore[arg-type]  # the tests' own names and values
        ports = AuditPorts(self.index, self.index, cut, self._sleep, lambda *told: self.told.append(told))
        return await Audit(Audited(SOURCE, self.rows if mapped else None, versioned), ports, chosen).run()

    async def alter(self, name: str, number: int | None, **payload: object) -> None:
        """Alter a point by hand: a chunk by its number, or the mark."""
        at = points.mark_id(SOURCE, name) if number is None else points.point_id(SOURCE, name, number)
        await self.engine.set_payload("passages", payload, [at])

    async def lose(self, name: str, number: int | None) -> None:
        """Delete a point by hand."""
        at = points.mark_id(SOURCE, name) if number is None else points.point_id(SOURCE, name, number)
        await self.engine.delete("passages", [at])


def told(findings: Findings) -> dict[str, tuple[str, str]]:
    """What was found, by document."""
    return {one.document: (one.kind, one.why) for one in findings.shown}

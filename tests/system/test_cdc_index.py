from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from pipeline import auditing, wiring
from pipeline.clients import passage_points as points
from pipeline.core import names
from pipeline.core.index_ports import Chunk
from pipeline.core.payloads import Document, Passage, Request, RetrievedContext
from pipeline.devkit.kafka import Broker
from pipeline.devkit.postgres_programs import PostgresMissing
from pipeline.ops.index_audit import Options
from tests.system import cdc_site as cdc
from tests.system.command import pipeline
from tests.system.site import TABLES, Site, site

pytestmark = [pytest.mark.system, pytest.mark.kafka]

WORDS = tuple("amber birch cedar delta ember fjord grove heath inlet juniper knoll larch maple nettle oxbow".split())


@dataclass
class Shelves:
    """Rows that are edited at random, and what they hold now. Every name and every text is a word of its own."""

    chance: random.Random
    rows: dict[str, str] = field(default_factory=dict)
    edits: int = 0

    def edit(self) -> str:
        """One statement; what it does to the rows is noted."""
        self.edits += 1
        name, body = self.chance.choice(WORDS), f"Shelf {self.edits} holds text{self.edits}."
        if name not in self.rows:
            self.rows[name] = body
            return f"INSERT INTO documents VALUES ('{name}', 'acme', '{name}', '{body}', now())"
        free = [word for word in WORDS if word not in self.rows]
        match self.chance.choice(("update", "update", "delete", "move" if free else "update")):
            case "delete":
                del self.rows[name]
                return f"DELETE FROM documents WHERE id = '{name}'"
            case "move":
                self.rows[free[0]] = self.rows.pop(name)
                return f"UPDATE documents SET id = '{free[0]}', title = '{free[0]}' WHERE id = '{name}'"
        self.rows[name] = body
        return f"UPDATE documents SET body = '{body}' WHERE id = '{name}'"

    def some(self, count: int) -> list[str]:
        """So many statements."""
        return [self.edit() for _ in range(count)]

    def truncate(self) -> str:
        """No row is left."""
        self.rows.clear()
        return "TRUNCATE documents"


@pytest.mark.within(240)
async def test_the_index_holds_what_the_source_holds(kafka: Broker, tmp_path: Path) -> None:
    """Snapshot, random edits, deletions, changed keys, a truncation; kill -9 of the indexer and of Kafka Connect in the
    middle: in the end each row is found with its newest text, and none that is gone. An audit finds no difference;
    after damage by hand it names just that, mends it, and then finds none again.
    """
    shelves = Shelves(random.Random(7))
    try:
        async with cdc.cdc_site(tmp_path / "cdc", kafka.bootstrap_servers, "distributed", cdc.REPEATS) as source:
            await source.sql(*shelves.some(30))
            await source.connect.run("documents", source.configuration())
            mapping = tmp_path / "tables.yaml"
            mapping.write_text(TABLES.format(topic=f"{source.prefix}.public.documents"))
            address = source.source.address()
            async with site(kafka, tmp_path, PIPELINE_TABLES=str(mapping), SOURCE_DATABASE_URL=address) as place:
                await place.start("preprocess")
                await place.start("retrieve", "index")
                await _edit_under_kills(source, place, shelves)
                found = await _found(place)
                await place.stages["retrieve+index"].process.terminate()
                await _audited(place, shelves)
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    assert shelves.rows
    for name in WORDS:
        held = {passage.text for passage in found[name] if passage.document == name}
        assert held == ({shelves.rows[name]} if name in shelves.rows else set()), name


async def _audited(place: Site, shelves: Shelves) -> None:
    """Audit the index that nobody has open now: clean, as a person sees it; damaged; mended; and clean again."""
    arguments = ("index", "audit", "--settle", "1")
    told = await asyncio.to_thread(pipeline, *arguments, folder=place.folder, **place.environment)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines()[-1] == "no differences"
    lost, altered, torn = sorted(shelves.rows)[:3]
    async with auditing.open_auditor(place.configured, []) as auditor:
        hurt = _Hurt(await auditor.live.current())
        await hurt.remove(points.mark_id("documents", lost), points.point_id("documents", lost, 0))
        await hurt.alter(points.point_id("documents", altered, 0), text="Not what the row says.")
        await hurt.remove(points.point_id("documents", torn, 0))
        # Above what the truncation has closed.
        orphan = Document(source="documents", id="orphan", tenant="acme", title="", body="", version=10**12)
        await auditor.live.replace(orphan, [Chunk(0, "Left.")])
        named = {lost: "missing", altered: "torn", torn: "torn", "orphan": "orphaned"}
        for options, expected in ((Options(), named), (Options(fix=True), named), (Options(), {})):
            (found,) = await auditor.run(replace(options, settle=0.2), lambda *_: None)
            assert {one.document: one.kind for one in found.shown} == expected
            assert (found.rows, found.open) == (len(shelves.rows), 0 if options.fix else len(expected))


@dataclass(frozen=True)
class _Hurt:
    """Points of the index that are altered by hand."""

    index: Any

    async def remove(self, *ids: str) -> None:
        place = self.index._collection
        chosen = models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=[*ids])]))
        await place.run(place.client.delete(place.name, chosen))

    async def alter(self, name: str, **payload: str) -> None:
        place = self.index._collection
        await place.run(place.client.set_payload(place.name, payload, [name]))


async def _edit_under_kills(source: cdc.Site, place: Site, shelves: Shelves) -> None:
    await source.until_passed()
    await source.sql(*shelves.some(60))
    await place.stages["retrieve+index"].process.kill()
    await source.sql(shelves.truncate(), *shelves.some(40))
    indexing = asyncio.create_task(place.start("retrieve", "index"))
    await source.sql(*shelves.some(60))
    await source.kill()
    await source.sql(*shelves.some(20))
    await source.connect.restart()
    await source.connect.until_streaming("documents")
    await indexing
    await source.until_passed()
    await place.idle("index")


async def _found(place: Site) -> dict[str, Sequence[Passage]]:
    """Ask for every name, and return the passages that `retrieve` found for each."""
    topic = names.topic(place.prefix, "contexts", "interactive")
    found: dict[str, Sequence[Passage]] = {}
    async with place.desk() as desk:
        for word in WORDS:
            await desk.request(Request(type="quick_answer", input=f"What does the {word} hold?", tenant="acme"))
        async with asyncio.timeout(60), wiring.open_tail(place.configured, [topic], from_start=True) as records:
            while len(found) < len(WORDS):
                record = await anext(records)
                context = await desk.codec.decode("contexts", RetrievedContext, record.value or b"")
                word = next(word for word in WORDS if word in context.input)
                found[word] = context.passages
        assert await desk.dead() == 0
    return found

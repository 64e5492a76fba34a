"""`pipeline index rebuild` while requests are answered and documents change, by real processes on a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline import wiring
from pipeline.clients import passage_points as points
from pipeline.core import names
from pipeline.core.payloads import Document, Request, RetrievedContext
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import Broker
from tests.clients.qdrant_server import Server, qdrant_server
from tests.system.site import Site, site

pytestmark = [pytest.mark.kafka, pytest.mark.system]

SHELVES = tuple(f"{name}{number}" for number in range(8) for name in ("amber", "birch", "cedar", "delta", "ember"))
BEFORE, AFTER = "first-model", "second-model"
LEAST = 5
"""So many searches are seen after the switch."""


@dataclass
class Shop:
    """A site with an index on a server, documents that change, and requests that are answered."""

    place: Site
    server: Server
    versions: dict[str, int] = field(default_factory=dict)
    edits: int = 0
    asked: int = 0
    contexts: list[RetrievedContext] = field(default_factory=list)

    async def edit(self, desk: wiring.Desk, shelf: str) -> None:
        """Write the next state of a document."""
        self.edits += 1
        body = f"The shelf {shelf} holds text{self.edits}."
        self.versions[shelf] = self.edits
        await desk.document(
            Document(source="shelves", id=shelf, tenant="acme", title=shelf, body=body, version=self.edits)
        )

    async def edit_on(self) -> None:
        """Edit all the while."""
        async with self.place.desk() as desk:
            while True:
                await self.edit(desk, SHELVES[self.edits * 7 % len(SHELVES)])
                await asyncio.sleep(0.2)

    async def ask_on(self) -> None:
        """Ask all the while."""
        async with self.place.desk() as desk:
            while True:
                self.asked += 1
                shelf = SHELVES[self.asked * 3 % len(SHELVES)]
                await desk.request(Request(type="quick_answer", input=f"What holds the shelf {shelf}?", tenant="acme"))
                await asyncio.sleep(0.3)

    async def listen(self) -> None:
        """Note what every request found."""
        topic = names.topic(self.place.prefix, "contexts", "interactive")
        async with (
            self.place.desk() as desk,
            wiring.open_tail(self.place.configured, [topic], from_start=True) as records,
        ):
            async for record in records:
                self.contexts.append(await desk.codec.decode("contexts", RetrievedContext, record.value or b""))

    def rebuild(self, number: int, **variables: str) -> GuardedProcess:
        """The command, to be started; what it prints is kept by `number`."""
        arguments = (sys.executable, "-m", "pipeline", "index", "rebuild", "--json")
        environment = {**self.place.environment, **variables}
        return GuardedProcess(Command(arguments, environment, self.place.folder, self.output(number)))

    def output(self, number: int) -> Path:
        return self.place.folder / f"rebuild{number}.log"

    async def until(self, fact: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 60.0) -> None:
        """Wait for a fact, or for what looks it up."""
        async with asyncio.timeout(seconds):
            while True:
                told = fact()
                if told if isinstance(told, bool) else await told:
                    return
                await asyncio.sleep(0.02)

    async def live(self) -> str:
        """The collection that is live."""
        found = await self.server.engine.get_aliases()
        return next(one.collection_name for one in found.aliases if one.alias_name == f"{self.place.prefix}-passages")

    async def found(self, collection: str) -> dict[str, tuple[str, int]]:
        """What a collection holds."""
        read, _ = await self.server.engine.scroll(collection, points.of_kind(points.OF_CHUNK), limit=1_000)
        payloads: list[dict[str, Any]] = [one.payload or {} for one in read]
        return {one["document"]: (one["text"], one["version"]) for one in payloads}


@asynccontextmanager
async def _shop(kafka: Broker, folder: Path, **variables: str) -> AsyncIterator[Shop]:
    async with qdrant_server() as server, site(kafka, folder, None, QDRANT_URL=server.url, **variables) as place:
        shop = Shop(place, server)
        for stage in ("preprocess", "retrieve", "index"):
            await place.start(stage)
        async with place.desk() as desk:
            for shelf in SHELVES:
                await shop.edit(desk, shelf)
        await place.idle("index")
        going = [asyncio.create_task(work) for work in (shop.edit_on(), shop.ask_on(), shop.listen())]
        try:
            await shop.until(lambda: len(shop.contexts) >= LEAST, "searches")
            yield shop
        finally:
            for task in going:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*going)


async def _ended(shop: Shop, process: GuardedProcess, number: int) -> dict[str, Any]:
    async with asyncio.timeout(120):
        assert await process.wait() == 0, shop.output(number).read_text()
    told = shop.output(number).read_text()
    report: dict[str, Any] = json.loads(told[told.index("{\n") :])
    return report


async def _holds_what_was_written(shop: Shop) -> None:
    """Stop nothing: wait until the live collection has each document's state of this moment, or a newer one."""
    written = dict(shop.versions)

    async def there() -> bool:
        found = await shop.found(await shop.live())
        return all(name in found and found[name][1] >= version for name, version in written.items())

    await shop.until(there, "all that was written")
    found = await shop.found(await shop.live())
    assert set(found) == set(SHELVES)
    assert all(text == f"The shelf {name} holds text{version}." for name, (text, version) in found.items())
    seen = len(shop.contexts)
    await shop.until(lambda: len(shop.contexts) >= seen + LEAST, "searches after the switch")
    assert all(context.passages for context in shop.contexts), "a search found nothing"
    async with shop.place.desk() as desk:
        assert await desk.dead() == 0


@pytest.mark.within(240)
async def test_the_index_is_made_anew_under_load_and_over_a_kill(kafka: Broker, tmp_path: Path) -> None:
    """kill -9 of the rebuild in the middle, and run again, which goes on with what was left: every search finds
    something, nothing is dead-lettered, and the new collection holds what was written."""
    async with _shop(kafka, tmp_path) as shop:
        prefix = f"{shop.place.prefix}-passages"
        first = shop.rebuild(1)
        await first.start()
        begun = f"/collections/{prefix}-2/points"
        await shop.until(lambda: any(one.path == begun and one.method == "PUT" for one in shop.server.asked), "writes")
        await first.kill()
        assert await shop.live() == f"{prefix}-1"
        async with shop.rebuild(2) as second:
            report = await _ended(shop, second, 2)
        assert "looking for 10 s" in shop.output(2).read_text()
        assert (report["old"], report["new"], report["skipped"]) == (f"{prefix}-1", f"{prefix}-2", {})
        assert await shop.live() == f"{prefix}-2"
        await _holds_what_was_written(shop)
        assert all(stage.process.running for stage in shop.place.stages.values())


@pytest.mark.soak
@pytest.mark.within(240)
async def test_the_index_is_made_anew_by_another_model(kafka: Broker, tmp_path: Path) -> None:
    """Searches go on in the old collection, and writing stops with a sentence; both are started with the new model, and
    nothing is missing."""
    async with _shop(kafka, tmp_path, EMBEDDING_MODEL=BEFORE) as shop:
        async with shop.rebuild(1, EMBEDDING_MODEL=AFTER) as rebuild:
            report = await _ended(shop, rebuild, 1)
        assert report["tokens"] > 0
        index, retrieve = shop.place.stages["index"], shop.place.stages["retrieve"]
        await shop.until(lambda: not index.process.running, "the end of the stage")
        assert f"start it again with EMBEDDING_MODEL={AFTER}" in index.log.read_text()
        assert retrieve.process.running
        await shop.place.start("index", name="index again", EMBEDDING_MODEL=AFTER)
        await retrieve.process.terminate()
        assert "searches stay with" in retrieve.log.read_text()
        await shop.place.start("retrieve", name="retrieve again", EMBEDDING_MODEL=AFTER)
        await _holds_what_was_written(shop)

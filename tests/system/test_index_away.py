"""The index's server goes away for a minute while documents and questions keep coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from pipeline import wiring
from pipeline.core import names
from pipeline.core.payloads import Document, Request, RetrievedContext
from pipeline.devkit.kafka import Broker
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST, free_ports
from tests.clients.qdrant_server import Server
from tests.system.site import Site, site

pytestmark = [pytest.mark.kafka, pytest.mark.system]

AWAY_SECONDS = 60.0
SHELVES = 20


def _shelf(number: int, version: int) -> Document:
    body = f"Shelf {number} holds thing{number}v{version}."
    return Document(
        source="shelves", id=f"shelf-{number}", tenant="acme", title=f"Shelf {number}", body=body, version=version
    )


async def _tell(place: Site, version: int, asked: str) -> None:
    """Write a version of every shelf, and a question about each."""
    async with place.desk() as desk:
        for number in range(SHELVES):
            await desk.document(_shelf(number, version))
            question = f"What does shelf {number} hold ({asked})?"
            await desk.request(Request(type="quick_answer", input=question, tenant="acme"))


async def _contexts(place: Site, wanted: int) -> Sequence[RetrievedContext]:
    """Read what `retrieve` made of the questions, as soon as there are so many."""
    topic, found = names.topic(place.prefix, "contexts", "interactive"), list[RetrievedContext]()
    async with (
        asyncio.timeout(60),
        place.desk() as desk,
        wiring.open_tail(place.configured, [topic], from_start=True) as records,
    ):
        while len(found) < wanted:
            found.append(await desk.codec.decode("contexts", RetrievedContext, (await anext(records)).value or b""))
    return found


@asynccontextmanager
async def _engine() -> AsyncIterator[Server]:
    server = Server(AsyncQdrantClient(":memory:"))
    yield server
    await server.engine.close()


@pytest.mark.within(240)
async def test_a_minute_without_the_index_loses_nothing_and_dead_letters_nothing(kafka: Broker, tmp_path: Path) -> None:
    """Connections are refused for a minute: what was written meanwhile is found afterwards, each question is passed on
    with its passages, no record is a dead letter, and none is left over.
    """
    (port,) = free_ports(1)
    async with _engine() as server:
        async with site(kafka, tmp_path, QDRANT_URL=f"http://{HOST}:{port}") as place:
            async with listening(server.application(), port, "qdrant"):
                started = await place.start("preprocess", "retrieve", "index")
                await _tell(place, 1, "before")
                await place.idle("preprocess", "retrieve", "index")
            asked = len(server.asked)
            await _tell(place, 2, "meanwhile")
            await asyncio.sleep(AWAY_SECONDS)
            assert len(server.asked) == asked, "the server was not away"
            async with place.desk() as desk:
                assert min(await desk.lag("index"), await desk.lag("retrieve")) >= SHELVES
            assert started.process.running
            async with listening(server.application(), port, "qdrant"):
                await place.idle("preprocess", "retrieve", "index", seconds=120)
                contexts = await _contexts(place, 2 * SHELVES)
                async with place.desk() as desk:
                    assert await desk.dead() == 0
        meanwhile = [one for one in contexts if "meanwhile" in one.input]
        assert len(meanwhile) == len(contexts) - len(meanwhile) == SHELVES
        assert all(one.passages for one in meanwhile)
        held, _ = await server.engine.scroll(f"{place.prefix}-passages", limit=1000)
        texts = {one.payload["text"] for one in held if one.payload and "text" in one.payload}
        assert texts == {_shelf(number, 2).body for number in range(SHELVES)}

"""A world for the index's writers: an engine whose requests stop at every step, writers that die, and what is true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import hypot
from random import Random
from typing import Any, Literal, TypeVar

import pytest
from qdrant_client import AsyncQdrantClient, models

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection, Work
from pipeline.clients.passage_store import PassageKeeper
from pipeline.core.index_ports import Chunk, Embedding, Indexed
from pipeline.core.payloads import Document

T = TypeVar("T")

NAME = "passages"
SOURCE = "handbook"
BM25 = points.Embedder()


async def here(work: Work[T]) -> T:
    """Run the client where it is called."""
    return await work


class Letters:
    """An embedder of two numbers: how long a text is, and how many vowels it has. `texts` is what it was asked.

    `answers` are given before it counts letters.
    """

    def __init__(self, model: str = "letters") -> None:
        self.model = model
        self.texts: list[str] = []
        self.answers: list[Sequence[Sequence[float]]] = []

    async def embed(self, texts: Sequence[str]) -> Embedding:
        await asyncio.sleep(0)
        self.texts += texts
        vectors = self.answers.pop(0) if self.answers else [vector_of(text) for text in texts]
        return Embedding(vectors, sum(map(len, texts)))


def vector_of(text: str) -> list[float]:
    """What `Letters` makes of a text."""
    return [float(len(text)), 1.0 + sum(map(text.count, "aeiou"))]


class Engine:
    """A client of the engine in memory that does single steps, each when it is let: other requests come in between.

    `writes` are the writing operations done so far. With `random` each step waits for `let`, in any order; else `at` is
    called before each step, by its number.
    """

    def __init__(self, random: Random | None = None) -> None:
        self.inner = AsyncQdrantClient(":memory:")
        self.random = random
        self.at: Callable[[int], Awaitable[None]] | None = None
        self.steps = 0
        self.reads = 0
        self.writes: list[models.UpdateOperation] = []
        self.waiting: list[asyncio.Future[None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def retrieve(self, name: str, ids: list[str], **options: Any) -> list[models.Record]:
        found, self.reads = [], self.reads + 1
        for some in self._cut(ids):
            await self._step()
            found += await self.inner.retrieve(name, some, **options)
        return found

    async def batch_update_points(self, name: str, operations: list[models.UpdateOperation], **_: Any) -> None:
        for operation in operations:
            for part in self._parts(operation):
                await self._step()
                self.writes.append(part)
                await self.inner.batch_update_points(name, [part])

    async def upsert(
        self, name: str, made: list[models.PointStruct], *, update_filter: models.Filter, **_: Any
    ) -> None:
        whole = models.UpsertOperation(upsert=models.PointsList(points=made, update_filter=update_filter))
        await self.batch_update_points(name, [whole])

    def _parts(self, operation: models.UpdateOperation) -> list[models.UpdateOperation]:
        if not isinstance(operation, models.UpsertOperation) or not isinstance(operation.upsert, models.PointsList):
            return [operation]
        fence, made = operation.upsert.update_filter, operation.upsert.points
        parts = [[point] for point in made] if self.at else self._cut(made)
        return [models.UpsertOperation(upsert=models.PointsList(points=some, update_filter=fence)) for some in parts]

    def _cut(self, items: list[T]) -> list[list[T]]:
        if self.random is None:
            return [items]
        self.random.shuffle(shuffled := list(items))
        return [[item] for item in shuffled] if self.random.random() < 0.5 else [items]

    async def _step(self) -> None:
        self.steps += 1
        if self.at:
            await self.at(self.steps)
        if self.random is None:
            return
        self.waiting.append(turn := asyncio.get_running_loop().create_future())
        await turn

    def let(self) -> None:
        """Let one request do one step."""
        if self.random:
            self.waiting[:] = [one for one in self.waiting if not one.done()]
            if self.waiting:
                self.waiting.pop(self.random.randrange(len(self.waiting))).set_result(None)


def place_on(engine: Engine, embedder: Letters | None = None, now: float = 1_000.0) -> Collection:
    """Make the collection on an engine."""
    client: Any = engine
    return Collection(client, NAME, here, lambda: now, embedder, indexed=False)


def keeper_on(engine: Engine, embedder: Letters | None = None, now: float = 1_000.0) -> PassageKeeper:
    """Make a writer on an engine; a worker has one."""
    return PassageKeeper(place_on(engine, embedder, now), BM25)


@dataclass(frozen=True)
class Event:
    """One event of a source, as it is told to a store."""

    kind: Literal["replace", "keep", "remove", "empty"]
    document: Document
    texts: tuple[str, ...] = ()

    async def tell(self, keeper: PassageKeeper) -> Indexed | None:
        match self.kind:
            case "replace":
                return await keeper.replace(self.document, [Chunk(n, text) for n, text in enumerate(self.texts)])
            case "keep":
                return await keeper.keep(self.document)
            case "remove":
                return await keeper.remove(self.document)
        return await keeper.empty(self.document.source, self.document.version)


@dataclass
class Truth:
    """A source and what it did: events with rising versions, and what it holds in the end."""

    random: Random
    events: list[Event] = field(default_factory=list)
    held: dict[str, tuple[Document, tuple[str, ...]]] = field(default_factory=dict)

    def go_on(self) -> None:
        """Do one more thing."""
        random, version = self.random, len(self.events) + 1
        name = random.choice("ab")
        document = Document(
            source=SOURCE,
            id=name,
            tenant=random.choice(["acme", "rival"]),
            title=random.choice(["Hours", "Prices"]),
            body="",
            version=version,
            fields=random.choice([{}, {"lang": "en"}, {"lang": "de", "kind": "x"}]),
        )
        live = self.held.get(name)
        match random.choice(["replace", "replace", "replace", "keep", "keep", "remove", "empty"]):
            case "keep" if live:
                self.held[name] = (document, live[1])
                self.events.append(Event("keep", document))
            case "remove" if live:
                del self.held[name]
                self.events.append(Event("remove", document.model_copy(update={"deleted": True})))
            case "empty" if random.random() < 0.5:
                self.held.clear()
                self.events.append(Event("empty", document.model_copy(update={"emptied": True})))
            case _:
                texts = tuple(random.choice(["shop opens", "parcels", "sundays"]) for _ in range(random.randint(1, 5)))
                self.held[name] = (document, texts)
                self.events.append(Event("replace", document, texts))

    def expected(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What is to be found in the index."""
        return {
            (name, number): {
                "text": text,
                "title": document.title,
                "tenant": document.tenant,
                "version": document.version,
                "fields": document.fields,
            }
            for name, (document, texts) in self.held.items()
            for number, text in enumerate(texts)
        }


async def found_in(engine: Engine) -> dict[tuple[str, int], dict[str, Any]]:
    """Read all chunks, and check that their vectors are those of their texts."""
    if not await engine.inner.collection_exists(NAME):  # nothing has been written yet
        return {}
    records, _ = await engine.inner.scroll(NAME, points.of_kind(points.OF_CHUNK), limit=1_000, with_vectors=True)
    found = {}
    for one in records:
        payload, vectors = one.payload or {}, one.vector
        assert isinstance(vectors, dict)
        assert isinstance(sparse := vectors["bm25"], models.SparseVector)
        if "dense" in vectors:
            told = vector_of(f"{payload['title']}\n{payload['text']}")
            assert vectors["dense"] == pytest.approx([number / hypot(*told) for number in told])
        assert _words(sparse) == _words(BM25.document(payload["title"], payload["text"]))
        found[payload["document"], payload["chunk"]] = {
            name: payload[name] for name in ("text", "title", "tenant", "version", "fields")
        }
    return found


def _words(vector: models.SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


@dataclass
class Workers:
    """Some writers on one engine that share out events, some of them twice; each event is told until it is done."""

    engine: Engine
    random: Random
    number: int
    deaths: int = 0
    dense: bool = False

    def keeper(self) -> PassageKeeper:
        """Make a worker's writer."""
        return keeper_on(self.engine, Letters() if self.dense else None)

    async def tell_all(self, events: Sequence[Event]) -> None:
        """Tell all events, in any order."""
        queue = [*events, *(one for one in events if self.random.random() < 0.3)]
        self.random.shuffle(queue)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(self.number)]
        while not all(worker.done() for worker in workers):
            await asyncio.sleep(0.001)
            self.engine.let()
        await asyncio.gather(*workers)

    async def _work(self, queue: list[Event]) -> None:
        keeper = self.keeper()
        while queue:
            mine = [queue.pop() for _ in range(min(len(queue), self.random.randint(1, 3)))]
            calls = {asyncio.create_task(one.tell(keeper)): one for one in mine}
            if self.deaths and self.random.random() < 0.3:
                self.deaths -= 1
                await asyncio.sleep(self.random.randint(1, 40) / 1_000)
                await kill(keeper, calls)
                keeper = self.keeper()
            else:
                await asyncio.wait(calls)
            # A version of a document whose text has not come yet is told again, and so is what was cut.
            unknown = [one for call, one in calls.items() if call.cancelled() or call.result() is None]
            queue[:0] = unknown
            await asyncio.sleep(0.001)


async def kill(keeper: PassageKeeper, calls: Iterable[asyncio.Task[Indexed | None]]) -> None:
    """Stop a process: nothing of it goes on, neither calls nor requests."""
    under_way: set[asyncio.Task[Any]] = {*keeper._reads._under_way, *keeper._writes._under_way}  # a kill asks nobody
    for task in [*under_way, *calls]:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*under_way, *calls, return_exceptions=True)

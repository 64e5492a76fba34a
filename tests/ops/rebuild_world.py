"""A world for rebuilds: processes on one engine whose requests stop at every step, which die, and what is true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from qdrant_client import AsyncQdrantClient

from pipeline.clients import passage_points as points
from pipeline.clients.passage_collection import Collection as Place
from pipeline.clients.passage_live import LivePassages
from pipeline.clients.passage_rebuild import Collections, Rebuild
from pipeline.core.errors import ConfigurationError, Defer, Halt, Retry
from pipeline.core.event import receive
from pipeline.core.index_ports import PassageStore, Search
from pipeline.core.payloads import Document
from pipeline.core.record import Partition, Record
from pipeline.core.stage import Context
from pipeline.devkit.clock import wall
from pipeline.devkit.fakes import FakeRereads
from pipeline.ops.index_apply import CountedStore, Tally, lanes
from pipeline.ops.index_rebuild import IndexRebuild, Report, Stream
from pipeline.stages.chunking import chunk
from pipeline.stages.index import Index
from pipeline.stages.normalise import normalise
from tests.clients.passage_world import Letters, here

ALIAS, SOURCE, TICKER = "index", "handbook", "ticker"
LOG = Partition("documents", 0)
STEP_SECONDS = 0.001


@dataclass
class Steps:
    """The engine; each request waits for its turn, and turns come in any order."""

    random: Random
    inner: AsyncQdrantClient = field(default_factory=lambda: AsyncQdrantClient(":memory:"))
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def turn(self) -> None:
        self.waiting.append(turn := asyncio.get_running_loop().create_future())
        await turn

    async def let(self) -> None:
        """Let requests be carried out, for ever."""
        while True:
            await asyncio.sleep(STEP_SECONDS if self.waiting else 5 * STEP_SECONDS)
            self.waiting[:] = [one for one in self.waiting if not one.done()]
            if self.waiting:
                self.waiting.pop(self.random.randrange(len(self.waiting))).set_result(None)


class Client:
    """The engine as one process sees it, which dies at a step if it is to. `used` names collections that were read."""

    def __init__(self, steps: Steps, life: int | None = None) -> None:
        self.steps = steps
        self.life = life
        self.used: set[str] = set()
        self.process: asyncio.Task[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.steps.inner, name)

        async def call(*given: Any, **options: Any) -> Any:
            await self.steps.turn()
            if self.life is not None:
                self.life -= 1
            if self.life == 0 and self.steps.random.random() < 0.5:  # carried out, and nobody hears of it
                await method(*given, **options)
            if self.life is not None and self.life <= 0:
                if self.process:
                    self.process.cancel()
                raise asyncio.CancelledError
            if name in ("query_points", "scroll"):
                self.used.add(given[0])
            return await method(*given, **options)

        return call


def live_on(client: Any, model: str = "") -> LivePassages:
    """Open the index as a process does."""
    embedder = Letters(model) if model else None
    return LivePassages(Place(client, ALIAS, here, wall, embedder, indexed=False))


def handled(store: PassageStore) -> Callable[[Document], Awaitable[None]]:
    """Return what applies a document by the stage's handler."""
    handler = Index(store, FakeRereads())

    async def apply(document: Document) -> None:
        event = receive(Record("", 0, 0, None, None), document, open_topic=True, copy=False, now=wall())
        await handler(event, Context(event.id, 1, None, wall))

    return apply


class Shelf:
    """The port `Reader` on a list of changes, the first of which may be gone."""

    def __init__(self, changes: Sequence[Document], first: int) -> None:
        self._changes = changes
        self._first = first
        self._next: dict[Partition, int] = {}

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        await asyncio.sleep(STEP_SECONDS)
        return dict.fromkeys(partitions, len(self._changes))

    def follow(self, partition: Partition, offset: int) -> None:
        self._next[partition] = max(offset, self._first)

    def leave(self, partitions: Collection[Partition]) -> None:
        raise NotImplementedError

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        await asyncio.sleep(STEP_SECONDS)
        start = self._next[LOG]
        self._next[LOG] = min(len(self._changes), start + min(limit, 3))
        return [Record(*LOG, offset, None, None) for offset in range(start, self._next[LOG])]

    def positions(self) -> Mapping[Partition, int]:
        return dict(self._next)

    async def close(self) -> None:
        raise NotImplementedError


@dataclass
class Truth:
    """A source: what it did, what of it was said to be in the index, and what it holds."""

    random: Random
    changes: list[Document] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    held: dict[str, Document] = field(default_factory=dict)

    def go_on(self, name: str = "") -> None:
        """Do one more thing."""
        random, version = self.random, len(self.changes) + 1
        name = name or random.choice("abc")
        body = "\n\n".join(
            f"# Part {n}\n\n{random.choice(['shop', 'post', 'sun'])}." for n in range(random.randint(1, 3))
        )
        fields = random.choice([{}, {"lang": "en"}])
        tenant, title = "acme", random.choice(["Hours", "Prices"])
        change = Document(source=SOURCE, id=name, tenant=tenant, title=title, body=body, version=version, fields=fields)
        live = self.held.get(name)
        what = random.choice(["replace", "replace", "keep", "remove"]) if name != TICKER else "replace"
        if live and what == "keep":
            change = change.model_copy(update={"body": "", "body_kept": True})
            self.held[name] = change.model_copy(update={"body": live.body})
        elif live and what == "remove":
            change = change.model_copy(update={"deleted": True})
            del self.held[name]
        else:
            self.held[name] = change
        self.changes.append(change)

    def expected(self) -> dict[tuple[str, int], tuple[str, str, int]]:
        """What is to be found."""
        return {
            (name, one.number): (document.title, one.text, document.version)
            for name, document in self.held.items()
            for one in chunk(normalise(document.body))
        }


async def found_in(engine: AsyncQdrantClient) -> dict[tuple[str, int], tuple[str, str, int]]:
    """Read the chunks of the live collection."""
    records, _ = await engine.scroll(ALIAS, points.of_kind(points.OF_CHUNK), limit=1_000)
    read = [one.payload or {} for one in records]
    return {(one["document"], one["chunk"]): (one["title"], one["text"], one["version"]) for one in read}


@dataclass
class World:
    """Writers, readers and a rebuild on one engine. `faults` say what went wrong."""

    random: Random
    before: str = ""
    after: str = ""
    steps: Steps = field(init=False)
    truth: Truth = field(init=False)
    done: bool = False
    report: Report | None = None
    searches: int = 0
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps, self.truth = Steps(self.random), Truth(self.random)

    # ---- writers -----------------------------------------------------------------------------------------------------
    async def settle(self, apply: Callable[[Document], Awaitable[None]], number: int) -> None:
        """Have one change applied, as often as it takes; then it is said to be in the index."""
        while True:
            try:
                await apply(self.truth.changes[number])
            except (Defer, Retry):
                await asyncio.sleep(0.05)
            else:
                self.truth.settled.add(number)
                return

    async def write(self, taken: list[int], index: LivePassages) -> None:
        """Be a worker of the index stage: settle all that is open, until the source has come to its end."""
        apply = handled(index)
        while not (self.done and not taken):
            mine = [taken.pop(0) for _ in range(min(len(taken), 2))]
            try:
                await asyncio.gather(*(self.settle(apply, number) for number in mine))
            finally:
                taken[:0] = [number for number in mine if number not in self.truth.settled]
            await asyncio.sleep(0 if taken else 0.02)

    async def worker(self, taken: list[int], deaths: int) -> None:
        """Run a worker; one that dies, or halts at another model, is started again."""
        model = self.before
        while True:
            client = Client(self.steps, self.random.randint(5, 80) if deaths else None)
            deaths -= bool(deaths)
            try:
                await run(client, self.write(taken, live_on(client, model)))
            except Halt as halted:
                if halted.code != "index_refused" or self.after not in halted.reason:
                    raise
                model = self.after
            except asyncio.CancelledError:
                if client.life is None:
                    raise
            else:
                return

    # ---- readers -----------------------------------------------------------------------------------------------------
    async def reader(self) -> None:
        """Search all the while: one collection each time, never nothing, and all that was said to be there before."""
        client = Client(self.steps)
        index = live_on(client, self.before)
        wanted = Search("acme", "shop post sun part", 9, {"document": TICKER}, neighbours=1)
        while not self.done:
            await asyncio.sleep(self.random.random() * 0.1)
            client.used.clear()
            known = [n for n in self.truth.settled if self.truth.changes[n].id == TICKER]
            found = await index.search(wanted)
            self.searches += 1
            self.used |= client.used
            assert len(client.used) == 1, client.used
            assert found, "a search found nothing"
            if self.before == self.after:
                newest = max(self.truth.changes[n].version for n in known)
                assert max(one.version for one in found) >= newest, "what was said to be there is not"

    # ---- the rebuild -------------------------------------------------------------------------------------------------
    async def rebuild(self, deaths: int, first: int) -> None:
        """Run the rebuild; one that dies is run again, and one of them may be aborted."""
        while self.report is None:
            client = Client(self.steps, self.random.randint(3, 150) if deaths else None)
            deaths -= bool(deaths)
            try:
                self.report = await run(client, self.rebuilt(client, first))
            except asyncio.CancelledError:
                if client.life is None:
                    raise
                if self.random.random() < 0.3:
                    with contextlib.suppress(ConfigurationError):
                        await Collections(live_on(Client(self.steps), self.after).aliases).abort()

    async def rebuilt(self, client: Client, first: int) -> Report:
        """Rebuild once."""
        tally, place = Tally(), live_on(client, self.after)
        target = Rebuild(place.aliases, f"{self.random.getrandbits(48):012x}")
        try:
            apply = handled(CountedStore(await target.begin(lambda _: None), tally))
        except ConfigurationError:
            live = (await self.steps.inner.get_aliases()).aliases
            if any(one.alias_name == ALIAS and one.collection_name != f"{ALIAS}-1" for one in live):
                raise AssertionError("the switch was made, and nobody knew") from None
            raise

        async def read(record: Record) -> None:
            await apply(self.truth.changes[record.offset])

        async def partitions() -> Collection[Partition]:
            return [LOG]

        stream = Stream(Shelf(self.truth.changes, first), partitions, read)
        async with lanes(3, tally, lambda _: None, wall) as opened:
            progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None  # noqa: E731  # typed so
            return await IndexRebuild(target, stream, apply, opened, tally, lambda _: None, progress).run()


async def run(client: Client, work: Coroutine[Any, Any, Any]) -> Any:
    """Run a process: once its client is dead, nothing of it goes on."""
    client.process = asyncio.ensure_future(work)
    try:
        return await client.process
    finally:
        if not client.process.done():
            client.process.cancel()
            await asyncio.gather(client.process, return_exceptions=True)

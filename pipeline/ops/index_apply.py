"""Changes on their way into an index that is made anew: those of one key in order, those of many at once.

Nothing is lost in silence: what is refused is counted by its reason, what can be done later is tried again in place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipeline.core.errors import Defer, Fail, Halt, Reject, Retry
from pipeline.core.index_ports import Chunk, Indexed, PassageStore
from pipeline.core.payloads import Document
from pipeline.core.ports import Clock

Work = Callable[[], Awaitable[None]]
Say = Callable[[str], None]

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Between two tries of what went wrong, in seconds; after the last one it is skipped, as the stage would bury it."""
LONGEST_PAUSE, SHORTEST_PAUSE = 30.0, 0.2
ROOM = 16
"""How much waits in each lane."""


@dataclass
class Tally:
    """What a rebuild has done. `unknown` are changes that keep a body which nobody knows, yet."""

    applied: int = 0
    tokens: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unknown: list[tuple[Hashable, Work]] = field(default_factory=list)


class Lanes:
    """Does work in a number of lanes, by key; use `lanes`. One failure ends all: `add` and `idle` raise it."""

    def __init__(self, number: int, tally: Tally, say: Say, clock: Clock) -> None:
        """Do nothing yet."""
        self._queues: list[asyncio.Queue[tuple[Hashable, Work]]] = [asyncio.Queue(ROOM) for _ in range(number)]
        self._tally = tally
        self._say = say
        self._clock = clock
        self._waits = ""
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._workers = [asyncio.create_task(self._lane(queue)) for queue in self._queues]

    async def add(self, key: Hashable, work: Work) -> None:
        """Have work done after all that was added before under its key; waits for room."""
        await self._or_failure(self._queues[hash(key) % len(self._queues)].put((key, work)))

    async def idle(self) -> None:
        """Wait until all that was added is done."""
        for queue in self._queues:
            await self._or_failure(queue.join())

    async def again(self) -> None:
        """Try once more what kept a body that nobody knew: its text may have come meanwhile."""
        unknown, self._tally.unknown = self._tally.unknown, []
        for key, work in unknown:
            await self.add(key, work)
        await self.idle()

    async def close(self) -> None:
        """Drop what is not done."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._failure.done():
            self._failure.exception()  # heard, or of no interest any more

    async def _or_failure(self, waiting: Awaitable[None]) -> None:
        task = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait({task, self._failure}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if self._failure.done():
            self._failure.result()
        await task

    async def _lane(self, queue: asyncio.Queue[tuple[Hashable, Work]]) -> None:
        while True:
            key, work = await queue.get()
            try:
                await self._do(key, work)
            except Exception as error:  # whatever it is, going on without this change would hide it
                if not self._failure.done():
                    self._failure.set_exception(error)
                return
            queue.task_done()

    async def _do(self, key: Hashable, work: Work) -> None:
        tries = 0
        while True:
            try:
                await work()
            except (Reject, Fail) as refused:
                self._tally.skipped[refused.reason] += 1
                return
            except Halt:
                raise
            except Defer as later:
                wait, why = later.until - self._clock(), later.reason
            except Exception as error:
                if isinstance(error, Retry) and error.code == "no_body":
                    self._tally.unknown.append((key, work))
                    return
                why = str(error) if isinstance(error, Retry) else f"{type(error).__name__}: {error}"
                if tries == len(PAUSES):
                    self._tally.skipped[why] += 1
                    return
                wait, tries = PAUSES[tries], tries + 1
            else:
                self._tally.applied += 1
                self._waits = ""
                return
            self._tell(why)
            await asyncio.sleep(min(max(wait, SHORTEST_PAUSE), LONGEST_PAUSE))

    def _tell(self, why: str) -> None:
        if why != self._waits:
            self._waits = why
            self._say(f"waiting: {why}")


@asynccontextmanager
async def lanes(number: int, tally: Tally, say: Say, clock: Clock) -> AsyncIterator[Lanes]:
    """Open lanes, which are closed with the block."""
    opened = Lanes(number, tally, say, clock)
    try:
        yield opened
    finally:
        await opened.close()


class CountedStore:
    """A store whose embedding tokens are counted."""

    def __init__(self, store: PassageStore, tally: Tally) -> None:
        """Count what `store` embeds."""
        self._store = store
        self._tally = tally

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Replace a document's chunks; see the port."""
        return self._count(await self._store.replace(document, chunks))

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port."""
        done = await self._store.keep(document)
        return done and self._count(done)

    async def remove(self, document: Document) -> Indexed:
        """Remove a document; see the port."""
        return self._count(await self._store.remove(document))

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove a source's documents; see the port."""
        return self._count(await self._store.empty(source, version))

    def _count(self, done: Indexed) -> Indexed:
        self._tally.tokens += done.tokens
        return done

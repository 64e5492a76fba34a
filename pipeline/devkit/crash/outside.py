"""The world behind the stages' ports, with outages: the fakes of `devkit.fakes`, slow, and down for a while at times.

Trouble that costs an attempt strikes each event twice at most, so that none of it ends in the dead letters, but for the
requests that the script lets fail for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from pipeline.core.errors import Defer, Outcome, Reject, Retry
from pipeline.core.index_ports import Chunk, Indexed, Search
from pipeline.core.payloads import Document, Passage
from pipeline.core.ports import ChatAnswer, ChatCall, Clock, WebhookAnswer, WebhookMessage
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.scheduler import owner
from pipeline.devkit.crash.script import BROKEN, PASSAGE, REFUSED, UNHEARD
from pipeline.devkit.fakes import FakeIndex, FakeModel, FakeWebhooks

ENOUGH = 2
"""How many attempts the outside may cost one event."""


@dataclass(slots=True)
class Outage:
    """Whether something of the outside is down, until when (by the loop's clock), and how it shows."""

    until: float = 0.0
    flavour: str = ""


@dataclass(slots=True)
class Call:
    """One call of the model: for which event, by which life of a process, from when to when, and how it ended."""

    event: str
    by: str
    began: float
    ended: float | None = None
    answered: bool = False


class Outside:
    """Model, index and webhooks. `calls` is the provider's own journal of what it was asked.

    `heard` is told the topic of a document that was indexed: nothing else tells its reader that it has come to its end.
    """

    def __init__(self, ledger: Ledger, chance: Random, clock: Clock) -> None:
        """Begin with everything up."""
        self.down: dict[str, Outage] = {"model": Outage(), "index": Outage(), "webhooks": Outage()}
        self.bugs: dict[str, float] = {}
        self.calls: list[Call] = []
        self.posts: list[WebhookMessage] = []
        self.indexed: dict[tuple[str, str], int] = {}
        self.heard: Callable[[str], None] = lambda _: None
        self._ledger = ledger
        self._chance = chance
        self._clock = clock
        self._model, self._index, self._webhooks = FakeModel(), FakeIndex(), FakeWebhooks()
        self._costs: dict[str, int] = {}

    # -------------------------------------------------------------- the model

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Answer after a while; see the port."""
        process = owner()
        made = Call(call.request_id, process.name if process else "", _now())
        self.calls.append(made)
        self._ledger.say(made.began, made.by, "calls the model", self._ledger.job(call.request_id))
        try:
            await self._trouble("model", call.request_id)
            await asyncio.sleep(self._seconds())
            if REFUSED in call.user:
                raise Reject("the provider refuses the request", code="content_filter")
            if BROKEN in call.user:
                raise Retry("the model fails")
            answer = await self._model.complete(call)
        finally:
            made.ended = _now()
        made.answered = True
        self._ledger.say(made.ended, made.by, "has the model's answer", self._ledger.job(call.request_id))
        return answer

    def _seconds(self) -> float:
        drawn = self._chance.random()
        return drawn if drawn < 0.7 else drawn * 10 if drawn < 0.95 else drawn * 40

    # -------------------------------------------------------------- the index

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find the one passage, and what was indexed for the tenant; see the port."""
        await self._trouble("index", wanted.text)
        return [PASSAGE, *await self._index.search(replace(wanted, limit=wanted.limit - 1))]

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Store a document; see the port."""
        await self._trouble("index", document.id)
        stored = await self._index.replace(document, chunks)
        place = (document.source, document.id)
        self.indexed[place] = max(self.indexed.get(place, 0), document.version)
        for made in self._ledger.of(self._ledger.chart.name("documents")):
            if made.job == f"{document.id}/{document.version}":
                self._ledger.answer(str(made.position))
                self.heard(made.position.topic)
        return stored

    async def keep(self, document: Document) -> Indexed | None:
        """Nothing is kept in a run; see the port."""
        return await self._index.keep(document)

    async def remove(self, document: Document) -> Indexed:
        """Nothing is removed in a run; see the port."""
        return await self._index.remove(document)

    async def empty(self, source: str, version: int) -> Indexed:
        """Nothing is emptied in a run; see the port."""
        return await self._index.empty(source, version)

    # -------------------------------------------------------------- webhooks

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Keep a message; see the port."""
        try:
            await self._trouble("webhooks", message.id)
        except Outcome as refusal:
            return WebhookAnswer(None, refusal=refusal)
        if UNHEARD.encode() in message.body:
            return WebhookAnswer(None, refusal=Retry("nobody hears this webhook"))
        answer = await self._webhooks.post(message)
        self.posts.append(message)
        return answer

    # -------------------------------------------------------------- outages

    async def _trouble(self, what: str, whom: str) -> None:
        if self._chance.random() < 0.3:
            await asyncio.sleep(0.05 * self._chance.random())
        outage = self.down[what]
        if outage.until <= _now():
            return
        if what == "index" or outage.flavour == "429":
            raise Defer(
                f"the {what} is not available", until=self._clock() + self._chance.choice((0.2, 3.0, 15.0, 45.0))
            )
        if self._spares(whom):
            return
        if outage.flavour == "timeout":
            await asyncio.sleep(5.0)
        raise Retry(f"the {what} failed ({outage.flavour})")

    def _spares(self, whom: str) -> bool:
        costs = self._costs[whom] = self._costs.get(whom, 0) + 1
        return costs > ENOUGH

    def stumble(self, stage: str, event: str) -> None:
        """Fail as the handler of a stage does that has a bug which shows at times."""
        if self.bugs.get(stage, 0.0) > _now() and not self._spares(event):
            raise RuntimeError(f"a bug of {stage}")


def _now() -> float:
    return asyncio.get_running_loop().time()

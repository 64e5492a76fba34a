"""Small in-memory stand-ins for the world behind the stages' ports. Each passes its port's contract suite.

Every fake has `troubles`: outcomes that the next calls raise, one each, before the fake works again.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.core.errors import Fail, Outcome, Reject
from pipeline.core.index_ports import Chunk, Embedding, Indexed, Search
from pipeline.core.limits import estimate_tokens
from pipeline.core.passages import Texts, diverse, fitting, widened
from pipeline.core.payloads import Document, Nothing, Passage
from pipeline.core.ports import ChatAnswer, ChatCall, WebhookAnswer, WebhookMessage
from pipeline.devkit.simulator_vectors import vector

_WORD = re.compile(r"\w+")


def echo(call: ChatCall) -> str:
    """Answer with what was asked."""
    return call.user


def plain_answer(call: ChatCall, text: str) -> ChatAnswer:
    """Make the answer that a provider gives who says `text`."""
    return ChatAnswer(
        text=text,
        refusal=None,
        finish_reason="stop",
        model=call.model,
        request_id=f"fake-{call.request_id}",
        prompt_tokens=estimate_tokens(call.system + call.user),
        completion_tokens=estimate_tokens(text),
        usage_estimated=False,
        latency=0.0,
    )


class FakeModel:
    """A chat model that answers by a function, after `seconds`. `calls` is what it was asked, `most` how many at once.

    `answers` are given before the function is asked.
    """

    def __init__(self, answer: Callable[[ChatCall], str] = echo, seconds: float = 0.0) -> None:
        """Answer by `answer`."""
        self.calls: list[ChatCall] = []
        self.answers: deque[ChatAnswer] = deque()
        self.troubles: deque[Outcome] = deque()
        self.in_flight = 0
        self.most = 0
        self._answer = answer
        self._seconds = seconds

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Answer one call; see the port."""
        self.calls.append(call)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.in_flight -= 1
        if self.troubles:
            raise self.troubles.popleft()
        return self.answers.popleft() if self.answers else plain_answer(call, self._answer(call))


class FakeIndex:
    """A vector index in a dictionary: search and store. A passage scores by the words that it shares with the query."""

    def __init__(self) -> None:
        """Start empty."""
        self.documents: dict[tuple[str, str], tuple[Document, tuple[Chunk, ...]]] = {}
        self.texted: dict[tuple[str, str], int] = {}
        self.removed: dict[tuple[str, str], int] = {}
        self.withheld: dict[tuple[str, str], tuple[Chunk, ...]] = {}
        self.emptied: dict[str, int] = {}
        self.searches: list[str] = []
        self.troubles: deque[Outcome] = deque()

    async def search(self, wanted: Search) -> Sequence[Passage]:
        """Find passages; see the port."""
        self._stumble()
        self.searches.append(wanted.text)
        asked = _words(wanted.text)
        visible = (
            (document, _passage(document, chunk, len(asked & _words(f"{document.title} {chunk.text}"))))
            for document, chunks in self.documents.values()
            if document.tenant == wanted.tenant
            for chunk in chunks
        )
        least = max(wanted.threshold or 0.0, 1.0)
        found = [one for document, one in visible if one.score >= least and _matches(document, one, wanted.filters)]
        found.sort(key=lambda passage: (-passage.score, passage.document, passage.chunk))
        kept = diverse(found, wanted.limit, wanted.per_document)
        if wanted.tokens is not None:
            kept = fitting(kept, wanted.limit, wanted.tokens)
        return widened(kept, self._texts(), wanted.neighbours, wanted.tokens)

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> Indexed:
        """Store a document; see the port."""
        if not chunks:
            return await self.remove(document)
        self._stumble()
        name = document.source, document.id
        held = self.documents.get(name)
        if self._late(document) or (held and document.version < self.texted[name]):
            return Indexed(stale=True)
        self.texted[name] = document.version
        newer = held[0] if held and held[0].version > document.version else document
        return self._stored(newer, tuple(chunks))

    async def keep(self, document: Document) -> Indexed | None:
        """Give a document a new title, fields and version; see the port."""
        self._stumble()
        name = document.source, document.id
        held = self.documents.get(name)
        if self._late(document) or (held and document.version < held[0].version):
            return Indexed(stale=True)
        if held:
            return self._stored(document, held[1])
        former = document.source, document.former or ""
        if former not in self.withheld or self.removed[former] > document.version:
            return None
        self.texted[name] = document.version
        return self._stored(document, self.withheld[former])

    async def remove(self, document: Document) -> Indexed:
        """Remove a document; see the port."""
        self._stumble()
        name = document.source, document.id
        held = self.documents.get(name)
        known = max(self.removed.get(name, document.version), held[0].version if held else document.version)
        if document.version <= self.emptied.get(name[0], document.version - 1) or document.version < known:
            return Indexed(stale=True)
        self.removed[name] = document.version
        if held:
            self.withheld[name] = held[1]
            del self.documents[name]
        return Indexed(removed=len(held[1]) if held else 0)

    async def empty(self, source: str, version: int) -> Indexed:
        """Remove a source's documents; see the port."""
        self._stumble()
        known = self.emptied[source] = max(version, self.emptied.get(source, version))
        names = [name for name, (held, _) in self.documents.items() if name[0] == source and held.version <= version]
        return Indexed(stale=known > version, removed=sum(len(self.documents.pop(name)[1]) for name in names))

    def _late(self, document: Document) -> bool:
        """Whether the document or its source was removed at this version or later."""
        gone = self.removed.get((document.source, document.id)), self.emptied.get(document.source)
        return any(one is not None and document.version <= one for one in gone)

    def _stored(self, document: Document, chunks: tuple[Chunk, ...]) -> Indexed:
        name = document.source, document.id
        before = self.documents.get(name)
        self.documents[name] = (document, chunks)
        if before is None:
            return Indexed(written=len(chunks))
        kept = len(set(before[1]) & set(chunks)) if before[0].title == document.title else 0
        return Indexed(written=len(chunks) - kept, kept=kept, removed=max(0, len(before[1]) - len(chunks)))

    def _texts(self) -> Texts:
        return {
            (held.source, held.id, held.version): {chunk.number: chunk for chunk in chunks}
            for held, chunks in self.documents.values()
        }

    def _stumble(self) -> None:
        if self.troubles:
            raise self.troubles.popleft()


class FakeRereads:
    """Reads rows again: the `bodies` by document, None for one whose row is gone; of others no query is known."""

    def __init__(self) -> None:
        """Know of no row."""
        self.bodies: dict[str, str | None] = {}
        self.troubles: deque[Outcome] = deque()

    async def reread(self, document: Document) -> Document | Nothing | None:
        """Add the body of a row; see the port."""
        if self.troubles:
            raise self.troubles.popleft()
        if document.id not in self.bodies:
            return None
        body = self.bodies[document.id]
        if body is None:
            return Nothing(why="gone")
        return document.model_copy(update={"body": body, "body_kept": False})


class FakeFreshness:
    """Knows how far sources are: an index that is at `versions`, and at the beginning of every other source."""

    def __init__(self) -> None:
        """Know of no source."""
        self.versions: dict[str, int] = {}
        self.asked: list[tuple[str, int, str]] = []
        self.troubles: deque[Outcome] = deque()

    async def caught_up(self, source: str, version: int, asker: str) -> bool:
        """Whether the index is there; see the port."""
        self.asked.append((source, version, asker))
        if self.troubles:
            raise self.troubles.popleft()
        return source in self.versions and self.versions[source] >= version


class FakeWebhooks:
    """A sender whose messages stay in `posted`; it knows the endpoints it is given."""

    def __init__(self, endpoints: Collection[str] = ("default",)) -> None:
        """Know `endpoints`."""
        self.posted: list[WebhookMessage] = []
        self.troubles: deque[Outcome] = deque()
        self._endpoints = frozenset(endpoints)

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Keep a message; see the port."""
        if message.endpoint not in self._endpoints:
            raise Fail(f"there is no webhook endpoint {message.endpoint!r}", code="no_endpoint")
        if self.troubles:
            return WebhookAnswer(None, refusal=self.troubles.popleft())
        self.posted.append(message)
        return WebhookAnswer(204)


class FakeEmbedder:
    """An embedder whose vectors bring texts about the same near each other. `texts` is what it was asked, in order."""

    def __init__(self, model: str = "fake-embedder", dimensions: int = 64) -> None:
        """Call itself `model`, and make vectors of `dimensions` numbers."""
        self.texts: list[str] = []
        self.troubles: deque[Outcome] = deque()
        self._model = model
        self._dimensions = dimensions

    @property
    def model(self) -> str:
        """The model's name; see the port."""
        return self._model

    async def embed(self, texts: Sequence[str]) -> Embedding:
        """Embed some texts; see the port."""
        if not all(map(str.strip, texts)):
            raise Reject("a text to embed is empty", code="empty_text")
        if texts and self.troubles:
            raise self.troubles.popleft()
        self.texts += texts
        vectors = [vector(text, self._dimensions) for text in texts]
        return Embedding(vectors, sum(map(estimate_tokens, texts)))


def _passage(document: Document, chunk: Chunk, score: int) -> Passage:
    return Passage(
        source=document.source,
        document=document.id,
        chunk=chunk.number,
        version=document.version,
        score=float(score),
        title=document.title,
        text=chunk.text,
    )


def _matches(document: Document, passage: Passage, filters: Mapping[str, str]) -> bool:
    own = {"tenant": document.tenant, "source": passage.source, "document": passage.document, "title": passage.title}
    known = {name: text for name, text in document.fields.items() if name.isascii() and name.isidentifier()} | own
    return all(known.get(name) == value for name, value in filters.items())


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))

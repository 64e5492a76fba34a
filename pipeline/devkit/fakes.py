"""Small in-memory stand-ins for the world behind the stages' ports. Each passes its port's contract suite.

Every fake has `troubles`: outcomes that the next calls raise, one each, before the fake works again.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.core.errors import Fail, Outcome
from pipeline.core.limits import estimate_tokens
from pipeline.core.payloads import Document, Passage
from pipeline.core.ports import ChatAnswer, ChatCall, Chunk, WebhookMessage

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
        self.searches: list[str] = []
        self.troubles: deque[Outcome] = deque()

    async def search(self, tenant: str, text: str, limit: int, filters: Mapping[str, str]) -> Sequence[Passage]:
        """Find passages; see the port."""
        self._stumble()
        self.searches.append(text)
        asked = _words(text)
        visible = (
            _passage(document, chunk, len(asked & _words(f"{document.title} {chunk.text}")))
            for document, chunks in self.documents.values()
            if document.tenant == tenant
            for chunk in chunks
        )
        found = [passage for passage in visible if passage.score > 0 and _matches(passage, filters)]
        return sorted(found, key=lambda passage: (-passage.score, passage.document, passage.chunk))[:limit]

    async def replace(self, document: Document, chunks: Sequence[Chunk]) -> bool:
        """Store a document; see the port."""
        self._stumble()
        if self._newer(document):
            return False
        self.documents[document.source, document.id] = (document, tuple(chunks))
        return True

    async def remove(self, document: Document) -> bool:
        """Remove a document; see the port."""
        self._stumble()
        if self._newer(document):
            return False
        self.documents.pop((document.source, document.id), None)
        return True

    def _newer(self, document: Document) -> bool:
        held = self.documents.get((document.source, document.id))
        return held is not None and held[0].version > document.version

    def _stumble(self) -> None:
        if self.troubles:
            raise self.troubles.popleft()


class FakeWebhooks:
    """A sender whose messages stay in `posted`; it knows the endpoints it is given."""

    def __init__(self, endpoints: Collection[str] = ("default",)) -> None:
        """Know `endpoints`."""
        self.posted: list[WebhookMessage] = []
        self.troubles: deque[Outcome] = deque()
        self._endpoints = frozenset(endpoints)

    async def post(self, message: WebhookMessage) -> int:
        """Keep a message; see the port."""
        if message.endpoint not in self._endpoints:
            raise Fail(f"there is no webhook endpoint {message.endpoint!r}", code="no_endpoint")
        if self.troubles:
            raise self.troubles.popleft()
        self.posted.append(message)
        return 204


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


def _matches(passage: Passage, filters: Mapping[str, str]) -> bool:
    known = {"source": passage.source, "document": passage.document, "title": passage.title}
    return all(known.get(name) == value for name, value in filters.items())


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))

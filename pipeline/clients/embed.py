"""Dense vectors of texts, from any server that speaks OpenAI's Embeddings API.

Gathered (embed_batches.py)  concurrent calls become requests
  Slots (limiter.py)         no more of them in flight than are allowed
    Breaker (circuit.py)     a refused key or a dead provider is found out by one of them
      OpenAIEmbeddings       one request, its answer checked (embed_answer.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
from openai import APIStatusError, AsyncOpenAI, OpenAIError

from pipeline.clients.circuit import Breaker
from pipeline.clients.embed_answer import BadAnswer, read_vectors
from pipeline.clients.embed_batches import EmbeddingLimits, Gathered, TextRefused
from pipeline.clients.limiter import Slots
from pipeline.clients.llm_failures import Provider, outcome_for, unanswered, unreadable
from pipeline.clients.measured import measured
from pipeline.clients.openai_client import CONNECT_SECONDS, host_of, open_client
from pipeline.core.errors import ConfigurationError, Reject
from pipeline.core.index_ports import Embedder, Embedding
from pipeline.core.limits import estimate_tokens
from pipeline.core.ports import Clock
from pipeline.telemetry.metrics import ModelMetrics

__all__ = ["EmbeddingLimits", "OpenAIEmbeddings", "open_embedder"]

_ABOUT_TEXTS = frozenset({400, 413, 422})


class OpenAIEmbeddings:
    """Makes requests on a client that somebody else closes."""

    def __init__(self, client: AsyncOpenAI, model: str, clock: Clock) -> None:
        """Use `client`, whose own retries must be off."""
        self._client = client
        self._model = model
        self._clock = clock
        # A provider that refuses a text may quote it, so nothing that it says goes on.
        self._provider = Provider(f"the embedding endpoint {host_of(client)}", client.api_key, quoted=False)
        self._length: int | None = None

    async def request(self, texts: Sequence[str], seconds: float) -> Embedding:
        """Embed `texts` in one request of at most `seconds`. Raises TextRefused, and what the port raises."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._post(texts, seconds)
        except APIStatusError as error:
            told = error.response
            outcome = outcome_for(told.status_code, told.headers, told.content, self._clock(), self._provider)
            if isinstance(outcome, Reject) and told.status_code in _ABOUT_TEXTS:
                raise TextRefused(outcome.reason, code=outcome.code) from None
            raise outcome from None
        except (OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise unanswered(error, seconds, self._provider) from error
        return self._read(response.content, texts)

    def _read(self, body: bytes, texts: Sequence[str]) -> Embedding:
        try:
            vectors, tokens = read_vectors(body, len(texts))
            length = len(vectors[0])
            if self._length not in {None, length}:
                raise BadAnswer(f"its vectors have {length} numbers, and those before had {self._length}")
        except BadAnswer as wrong:
            raise unreadable(str(wrong), self._provider) from None
        self._length = length
        return Embedding(vectors, sum(map(estimate_tokens, texts)) if tokens is None else tokens)

    async def _post(self, texts: Sequence[str], seconds: float) -> httpx2.Response:
        timeout = httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        # What OpenAI's own libraries ask for, so that servers know it; far quicker to read than numbers.
        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "base64"}
        return await self._client.post("/embeddings", cast_to=httpx2.Response, body=body, options={"timeout": timeout})


@asynccontextmanager
async def open_embedder(
    base_url: str | None,
    api_key: str,
    model: str,
    limits: EmbeddingLimits,
    clock: Clock,
    metrics: ModelMetrics | None = None,
) -> AsyncIterator[Embedder]:
    """Open the embedder for `model` within `limits`, behind a circuit breaker; `metrics` sees real requests.

    Raises ConfigurationError that names the variable where model, address or key cannot be used. Does not connect yet.
    """
    if not model.strip() or not model.isprintable():
        raise ConfigurationError("EMBEDDING_MODEL is empty or holds control characters; set it to a model's name")
    async with open_client(base_url, api_key, limits.concurrency) as client:
        endpoint, breaker, slots = (
            OpenAIEmbeddings(client, model, clock),
            Breaker(clock),
            Slots(limits.concurrency, clock),
        )

        async def counted(texts: Sequence[str], seconds: float) -> Embedding:
            if metrics is None:
                return await endpoint.request(texts, seconds)
            embedded = await measured(metrics, model, endpoint.request(texts, seconds))
            metrics.tokens.labels(model, "input").inc(embedded.tokens)
            return embedded

        async def send(texts: Sequence[str]) -> Embedding:
            return await slots.run(limits.timeout, lambda rest: breaker.run(lambda: counted(texts, rest)))

        gathered = Gathered(model, send, limits)
        try:
            yield gathered
        finally:
            await gathered.close()

"""The chat model: OpenAI's Chat Completions, by its own library, on any server that speaks it.

The call goes out as a custom request, and its answer is checked here: the typed method of the library costs twice the
processor time (facts: P5). The library never retries; one layer does, and it is the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
from openai import APIStatusError, AsyncOpenAI, OpenAIError

from pipeline.clients.circuit import GuardedModel
from pipeline.clients.limiter import LimitedModel
from pipeline.clients.llm_answer import read_answer
from pipeline.clients.llm_failures import Provider, outcome_for, unanswered
from pipeline.clients.measured import MeasuredModel
from pipeline.clients.openai_client import CONNECT_SECONDS, open_client
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel, Clock
from pipeline.telemetry.metrics import ModelMetrics


class OpenAIModel:
    """Makes calls on a client that somebody else closes."""

    def __init__(self, client: AsyncOpenAI, clock: Clock) -> None:
        """Use `client`, whose own retries must be off."""
        self._client = client
        self._clock = clock
        self._provider = Provider(secret=client.api_key)

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call; see the port. The provider sees `request_id` as client request id and idempotency key."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(call.timeout):
                response = await self._post(call)
        except APIStatusError as error:
            told = error.response
            raise outcome_for(told.status_code, told.headers, told.content, self._clock(), self._provider) from None
        except (OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise unanswered(error, call.timeout, self._provider) from error
        latency = asyncio.get_running_loop().time() - began
        return read_answer(response.content, response.headers, call, latency)

    async def _post(self, call: ChatCall) -> httpx2.Response:
        timeout = httpx2.Timeout(call.timeout, connect=min(CONNECT_SECONDS, call.timeout))
        headers = {"X-Client-Request-Id": call.request_id, "Idempotency-Key": call.request_id}
        options: Any = {"timeout": timeout, "headers": headers, "idempotency_key": call.request_id}
        return await self._client.post(
            "/chat/completions", cast_to=httpx2.Response, body=request_body(call), options=options
        )


def request_body(call: ChatCall) -> Mapping[str, Any]:
    """Spell a call as Chat Completions has it."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [{"role": "system", "content": call.system}, {"role": "user", "content": call.user}],
        "max_completion_tokens": call.max_output_tokens,
        "temperature": call.temperature,
    }
    if call.json_schema is not None:
        form = {"name": "answer", "schema": call.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


@asynccontextmanager
async def open_chat_model(
    base_url: str | None, api_key: str, concurrency: int, clock: Clock, metrics: ModelMetrics | None = None
) -> AsyncIterator[ChatModel]:
    """Open the model for at most `concurrency` calls in flight, behind a circuit breaker; `metrics` sees real calls.

    Raises ConfigurationError that names the variable where address or key cannot be used. Does not connect yet.
    """
    async with open_client(base_url, api_key, concurrency) as client:
        model: ChatModel = OpenAIModel(client, clock)
        if metrics is not None:
            model = MeasuredModel(model, metrics)
        yield LimitedModel(GuardedModel(model, clock), concurrency, clock)

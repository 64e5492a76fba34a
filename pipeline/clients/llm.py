"""The chat model: OpenAI's Chat Completions, by its own library, on any server that speaks it.

The call goes out as a custom request, and its answer is checked here: the typed method of the library costs twice the
processor time (facts: P5). The library never retries; one layer does, and it is the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
from openai import APIStatusError, AsyncOpenAI, DefaultAioHttpClient, OpenAIError

from pipeline.clients.circuit import GuardedModel
from pipeline.clients.limiter import LimitedModel
from pipeline.clients.llm_answer import read_answer
from pipeline.clients.llm_failures import outcome_for, unanswered
from pipeline.clients.measured import MeasuredModel
from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel, Clock
from pipeline.telemetry.metrics import ModelMetrics

OPENAI = "https://api.openai.com/v1"
"""Where OPENAI_BASE_URL points when it is not set."""
CONNECT_SECONDS = 30.0
"""A burst of new connections starves the loop for seconds; that is no reason to fail calls."""


class OpenAIModel:
    """Makes calls on a client that somebody else closes."""

    def __init__(self, client: AsyncOpenAI, clock: Clock) -> None:
        """Use `client`, whose own retries must be off."""
        self._client = client
        self._clock = clock

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call; see the port. The provider sees `request_id` as client request id and idempotency key."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(call.timeout):
                response = await self._post(call)
        except APIStatusError as error:
            answered = error.response
            secret = self._client.api_key
            raise outcome_for(answered.status_code, answered.headers, answered.content, self._clock(), secret) from None
        except (OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise unanswered(error, call.timeout, self._client.api_key) from error
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
    address = check_address(base_url or OPENAI)
    if not api_key.strip() or not api_key.isprintable():
        raise ConfigurationError("OPENAI_API_KEY is empty or holds control characters; set it to the provider's key")
    # Numbers, as None would silently mean 100 on this transport; a few more than calls, for connections that close.
    limits = httpx2.Limits(max_connections=concurrency + 16, max_keepalive_connections=concurrency + 16)
    http = DefaultAioHttpClient(
        limits=limits,
        timeout=httpx2.Timeout(600.0, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=not is_loopback(address),
    )
    async with AsyncOpenAI(api_key=api_key, base_url=address, max_retries=0, http_client=http) as client:
        model: ChatModel = OpenAIModel(client, clock)
        if metrics is not None:
            model = MeasuredModel(model, metrics)
        yield LimitedModel(GuardedModel(model, clock), concurrency, clock)


def check_address(text: str) -> str:
    """Return a base address that is fit for use. Raises ConfigurationError otherwise."""
    try:
        httpx2.URL(text)
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname)
    except (httpx2.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigurationError("OPENAI_BASE_URL must be an http or https address such as https://host/v1")
    return text


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine, which no proxy can reach for us."""
    host = httpx2.URL(address).host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

"""OpenAI's own library on its aiohttp transport, for any server that speaks the same; chat and embeddings share it.

The library never retries; one layer does, and it is the runtime.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient

from pipeline.core.errors import ConfigurationError

OPENAI = "https://api.openai.com/v1"
"""Where OPENAI_BASE_URL points when it is not set."""
CONNECT_SECONDS = 30.0
"""A burst of new connections starves the loop for seconds; that is no reason to fail calls."""


@asynccontextmanager
async def open_client(base_url: str | None, api_key: str, concurrency: int) -> AsyncIterator[AsyncOpenAI]:
    """Open the library for `concurrency` calls in flight.

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
        yield client


def check_address(text: str) -> str:
    """Return a base address that is fit for use. Raises ConfigurationError otherwise."""
    try:
        httpx2.URL(text)
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname)
        named = "@" in url.netloc
    except (httpx2.InvalidURL, ValueError):
        usable = named = False
    if named:
        raise ConfigurationError("OPENAI_BASE_URL holds a user or a password; what proves who we are is OPENAI_API_KEY")
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


def host_of(client: AsyncOpenAI) -> str:
    """Name the server that a client calls, without what else is in its address, such as a password."""
    url = client.base_url
    return f"{url.host}:{url.port}" if url.port else url.host

"""What an attempt comes to: an answer's status and wish, or why there is none. Pure but for reading the answer's body.

No reason tells the URL, whose path is often a password, nor a word of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from pipeline.clients.retry_after import retry_after
from pipeline.core.errors import Defer, Fail, Outcome, Retry

MOST_BYTES = 65_536
"""An answer's body is read so far, that its connection can be used again; then the connection is closed."""
BODY_SECONDS = 2.0
"""And so long. The status line is the answer: what comes after it, and whether it comes to an end, changes nothing."""
LONGEST_WAIT = 86_400.0
"""Seconds beyond which no `Retry-After` is believed."""
LEAST_DEFERRAL = 1.0
"""Seconds that a busy endpoint is left alone for at least: a deferral costs no attempt, so nothing else slows it."""


def refusal_of(endpoint: str, status: int, headers: Mapping[str, str], now: float) -> Outcome | None:
    """Say what an answer comes to: None for a 2xx. `headers` is read by lower-case names.

    410 is for good; 429 and 503 that name a time are deferrals; everything else is an attempt, after the time where
    one is named.
    """
    if 200 <= status < 300:
        return None
    reason = f"the webhook endpoint {endpoint!r} answered {status}"
    if status == 410:
        return Fail(f"{reason}: it is gone for good", code="gone")
    wait = retry_after(headers, now, LONGEST_WAIT)
    if status in {429, 503} and wait is not None:
        return Defer(reason, until=now + max(wait, LEAST_DEFERRAL), code="webhook_busy")
    return Retry(reason, code=f"webhook_{status}", after=wait)


def refusal_without_answer(endpoint: str, error: Exception, timeout: float) -> Retry:
    """Say what an attempt without an answer comes to, by the error of it."""
    name = f"the webhook endpoint {endpoint!r}"
    if isinstance(error, TimeoutError):
        return Retry(f"{name} gave no answer within {timeout:.3g} s", code="webhook_timeout")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Retry(f"{name} has a certificate that cannot be trusted for its name", code="webhook_tls")
    if isinstance(error, aiohttp.ClientSSLError):
        return Retry(f"no secure connection to {name}", code="webhook_tls")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Retry(f"the name of {name} has no address now", code="webhook_unreachable")
    return Retry(f"no answer of {name}: {type(error).__name__}", code="webhook_unreachable")


async def drained(response: aiohttp.ClientResponse) -> int:
    """Read an answer's body, within bounds, and return how many bytes came. Its connection is closed unless all did."""
    content, size = response.content, 0
    if content.at_eof():
        return size
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in content.iter_any():
                size += len(chunk)
                if size >= MOST_BYTES:
                    break
    except (aiohttp.ClientError, OSError):
        pass  # cut short or too slow, which a TimeoutError of ours or of the whole attempt tells: an OSError
    if not content.at_eof():
        response.close()
    return min(size, MOST_BYTES)

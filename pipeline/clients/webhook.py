"""Webhooks out: signed as Standard Webhooks has it, over https, to addresses that the catalog knows.

Only a 2xx is a success; redirects are refusals; the answer's body is never read, so its size does not matter.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

import aiohttp
from standardwebhooks.webhooks import Webhook
from yarl import URL

from pipeline.clients.retry_after import retry_after
from pipeline.core.catalog import Endpoint
from pipeline.core.errors import ConfigurationError, Defer, Fail, Outcome, Retry
from pipeline.core.ports import Clock, WebhookAnswer, WebhookMessage, WebhookSender

CONNECTIONS = 256
"""The most connections at once, all endpoints together."""
LEAST_SECRET = 24
"""The least bytes of a signing secret (Standard Webhooks, section on signatures: 24 to 64)."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one endpoint is and what signs for it, with the names of the variables or entries they came from.

    `secret` is `whsec_` and base64; several, separated by spaces, all sign (while keys are being changed).
    """

    url: str
    secret: str = field(repr=False)
    url_from: str = "url"
    secret_from: str = "secret"  # noqa: S105  # the name of where it came from
    timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL
    keys: tuple[Webhook, ...] = field(repr=False)
    timeout: float = 20.0


def addresses(endpoints: Mapping[str, Endpoint], read: Callable[[str], str | None]) -> Mapping[str, Address]:
    """Look up the addresses and secrets of a catalog's endpoints; `read` returns a variable's value.

    Raises ConfigurationError that names the endpoint and the variable which is missing.
    """
    return {name: _address(name, endpoint, read) for name, endpoint in endpoints.items()}


@asynccontextmanager
async def open_webhooks(
    endpoints: Mapping[str, Address], *, allow_loopback: bool, clock: Clock
) -> AsyncIterator[WebhookSender]:
    """Open a sender for `endpoints`. Raises ConfigurationError that names an unusable address or secret."""
    targets = {name: _target(name, address, allow_loopback=allow_loopback) for name, address in endpoints.items()}
    # No cookies and no proxy of the environment: what one endpoint says never changes what another one gets.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield SignedWebhooks(session, targets, clock)


class SignedWebhooks:
    """Posts messages on a session that somebody else closes."""

    def __init__(self, session: aiohttp.ClientSession, targets: Mapping[str, _Target], clock: Clock) -> None:
        """Know `targets` by their endpoints' names."""
        self._session = session
        self._targets = targets
        self._clock = clock

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Post once; see the port."""
        target = self._targets.get(message.endpoint)
        if target is None:
            raise Fail(f"there is no webhook endpoint {message.endpoint!r}", code="no_endpoint")
        headers = sign(message, target.keys, self._clock())
        timeout = aiohttp.ClientTimeout(total=target.timeout)
        try:
            async with self._session.post(
                target.url, data=message.body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                status, answered = response.status, response.headers
        except TimeoutError:
            reason = f"the webhook endpoint {message.endpoint!r} gave no answer within {target.timeout:.3g} s"
            return WebhookAnswer(None, refusal=Retry(reason, code="webhook_timeout"))
        except (aiohttp.ClientError, OSError) as error:
            # The error's text may hold the URL, whose path can be a secret.
            reason = f"no connection to the webhook endpoint {message.endpoint!r}: {type(error).__name__}"
            return WebhookAnswer(None, refusal=Retry(reason, code="webhook_unreachable"))
        if 200 <= status < 300:
            return WebhookAnswer(status)
        return WebhookAnswer(status, refusal=outcome_for(message.endpoint, status, answered, self._clock()))


def outcome_for(endpoint: str, status: int, headers: Mapping[str, str], now: float) -> Outcome:
    """Say what a webhook's refusal comes to. Pure; `headers` is read by lower-case names."""
    reason = f"the webhook endpoint {endpoint!r} answered {status}"
    if status == 410:
        return Fail(f"{reason}: it is gone for good", code="gone")
    wait = retry_after(headers, now)
    if status in {429, 503} and wait is not None:
        return Defer(reason, until=now + wait, code="webhook_busy")
    return Retry(reason, code=f"webhook_{status}", after=wait)


def sign(message: WebhookMessage, keys: tuple[Webhook, ...], now: float) -> dict[str, str]:
    """Return the three headers of Standard Webhooks, for an attempt at `now`."""
    at = datetime.fromtimestamp(int(now), UTC)
    signatures = (key.sign(message.id, at, message.body.decode()) for key in keys)
    return {
        "content-type": "application/json",
        "user-agent": "llm-event-pipeline",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def _address(name: str, endpoint: Endpoint, read: Callable[[str], str | None]) -> Address:
    url_from = endpoint.url_env or f"endpoints.{name}.url"
    url = endpoint.url if endpoint.url_env is None else read(endpoint.url_env)
    secret = read(endpoint.secret_env)
    for variable, value in ((url_from, url), (endpoint.secret_env, secret)):
        if not value:
            raise ConfigurationError(f"the webhook endpoint {name!r} needs {variable}, which is not set")
    return Address(url or "", secret or "", url_from, endpoint.secret_env, endpoint.timeout_seconds)


def _target(name: str, address: Address, *, allow_loopback: bool) -> _Target:
    try:
        url = URL(address.url)
    except ValueError:
        url = URL()
    problem = _problem(url, allow_loopback=allow_loopback)
    if problem:
        raise ConfigurationError(f"the webhook endpoint {name!r}: {address.url_from} {problem}")
    keys = tuple(_key(name, secret, address.secret_from) for secret in address.secret.split())
    if not keys:
        raise ConfigurationError(f"the webhook endpoint {name!r}: {address.secret_from} is empty")
    return _Target(url, keys, address.timeout)


def _problem(url: URL, *, allow_loopback: bool) -> str:
    if not url.host or url.scheme not in {"https", "http"}:
        return "is no https address"
    if url.user is not None or url.password is not None:
        return "must not hold a user or password"
    if _is_loopback(url.host):
        return "" if allow_loopback else "is on this machine; PIPELINE_ALLOW_LOOPBACK_WEBHOOKS=1 allows that"
    return "" if url.scheme == "https" else "must be https"


def _is_loopback(host: str) -> bool:
    try:
        return host.rstrip(".").lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _key(name: str, secret: str, secret_from: str) -> Webhook:
    encoded = secret.removeprefix("whsec_")
    try:
        if secret == encoded or len(b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)) < LEAST_SECRET:
            raise ValueError
        return Webhook(secret)
    except ValueError:
        needed = f"must be whsec_ and the base64 of at least {LEAST_SECRET} bytes"
        raise ConfigurationError(f"the webhook endpoint {name!r}: {secret_from} {needed}") from None

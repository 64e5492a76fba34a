"""Webhooks out: signed as Standard Webhooks has it, over https, to addresses that the catalog knows.

Only a 2xx is a success, and the status line is the answer; redirects are refusals. A sender inside our own network is
a way into it, so each new connection goes to an address that was checked after its name was resolved, by no proxy.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import aiohttp
from yarl import URL

from pipeline.clients.webhook_address import ForbiddenAddress, brought, configured, entry_for, plain
from pipeline.clients.webhook_answer import drained, refusal_of, refusal_without_answer
from pipeline.clients.webhook_gate import Gate, Limits, Stay, Ticket
from pipeline.clients.webhook_keys import Keyring
from pipeline.clients.webhook_line import Line
from pipeline.clients.webhook_resolver import ForbiddenTarget, GuardedResolver, Lookup, SystemLookup, guarded_socket
from pipeline.clients.webhook_signing import BadSecret, generate_secret, public_key, signed_headers
from pipeline.core.catalog import Endpoint, Tenant
from pipeline.core.errors import ConfigurationError, Defer, Fail
from pipeline.core.ports import Clock, WebhookAnswer, WebhookMessage, WebhookSender

__all__ = [
    "Address",
    "EndpointCheck",
    "SignedWebhooks",
    "addresses",
    "check_endpoint",
    "generate_secret",
    "open_webhooks",
    "public_key",
]

KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s after which many servers close a connection: one that is closed as we use it costs an attempt."""

_LARGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where one endpoint is and what signs for it, with the names of the variables or entries they came from.

    `secret` is `whsec_` or `whsk_` and base64; several, separated by spaces, all sign (while keys are being changed).
    `secret_file` is read again when it changes. `hosts` are those of the URLs that requests may bring. `timeout` is in
    seconds, for a whole attempt.
    """

    url: str
    secret: str = field(repr=False)
    url_from: str = "url"
    secret_from: str = "secret"  # noqa: S105  # the name of where it came from
    timeout: float = 20.0
    limits: Limits = Limits()
    hosts: frozenset[str] = frozenset()
    secret_file: Path | None = None


@dataclass(frozen=True, slots=True)
class EndpointCheck:
    """What can be told of an endpoint without a post: what is wrong with it (empty where nothing is), the IP addresses
    that it may be reached at, and what its receiver verifies with, for each of its keys: `v1`, or a `whpk_` key."""

    problem: str
    addresses: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL
    keyring: Keyring
    address: Address
    timeout: aiohttp.ClientTimeout
    hosts: frozenset[str]


def addresses(
    endpoints: Mapping[str, Endpoint],
    read: Callable[[str], str | None],
    *,
    file_of: Callable[[str], Path | None] = lambda _: None,
    tenants: Mapping[str, Tenant] | None = None,
) -> Mapping[str, Address]:
    """Look up the addresses and secrets of a catalog's endpoints; `read` returns a variable's value.

    `file_of` names the file that a variable's value comes from, where it does; the hosts of URLs that requests may
    bring are those of `tenants`. Raises ConfigurationError that names the endpoint and the variable which is missing.
    """
    return {
        name: replace(
            _address(name, endpoint, read),
            secret_file=file_of(endpoint.secret_env),
            hosts=frozenset(
                host for one in (tenants or {}).values() if one.webhook_endpoint == name for host in one.webhook_hosts
            ),
        )
        for name, endpoint in endpoints.items()
    }


@asynccontextmanager
async def open_webhooks(
    endpoints: Mapping[str, Address],
    *,
    allow_loopback: bool,
    clock: Clock,
    lookup: Lookup | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[WebhookSender]:
    """Open a sender for `endpoints`. Raises ConfigurationError that names an unusable address or secret.

    `lookup` asks the system unless given, and `tls` trusts whom the system trusts.
    """
    targets = {name: _target(name, address, allow_loopback=allow_loopback) for name, address in endpoints.items()}
    system = SystemLookup()
    # No bound on connections: the gate has let in so many that there is one for each.
    connector = aiohttp.TCPConnector(
        limit=0,
        ssl=tls or True,
        use_dns_cache=False,
        resolver=GuardedResolver(lookup or system, allow_loopback=allow_loopback),
        socket_factory=partial(guarded_socket, allow_loopback=allow_loopback),
        keepalive_timeout=KEEP_ALIVE_SECONDS,
    )
    try:
        # No cookies and no proxy of the environment: what one endpoint says never changes what another one gets. What
        # comes back is not unpacked: a few bytes could be gigabytes.
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
        ) as session:
            yield SignedWebhooks(session, targets, clock, allow_loopback=allow_loopback)
    finally:
        system.close()


async def check_endpoint(
    name: str, address: Address, *, allow_loopback: bool, lookup: Lookup | None = None
) -> EndpointCheck:
    """Say whether an endpoint could be posted to now, without doing it: its URL, its secrets, what its name means."""
    try:
        target = _target(name, address, allow_loopback=allow_loopback)
    except ConfigurationError as error:
        return EndpointCheck(str(error))
    verified_by = tuple(key.public or key.kind for key in target.keyring.keys(asyncio.get_running_loop().time()))
    host, system = target.url.raw_host or "", SystemLookup()
    try:
        resolver = GuardedResolver(lookup or system, allow_loopback=allow_loopback)
        async with asyncio.timeout(address.timeout):
            found = tuple(await resolver.allowed(host))
    except TimeoutError:
        return EndpointCheck(f"the name {host} was not resolved within {address.timeout:g} s", keys=verified_by)
    except ForbiddenTarget as error:
        return EndpointCheck(f"{host} is {error.problem}, where no webhook may go", keys=verified_by)
    except OSError:
        return EndpointCheck(f"the name {host} has no address", keys=verified_by)
    finally:
        system.close()
    return EndpointCheck("", found, verified_by)


class SignedWebhooks:
    """Posts messages on a session that somebody else closes."""

    def __init__(
        self, session: aiohttp.ClientSession, targets: Mapping[str, _Target], clock: Clock, *, allow_loopback: bool
    ) -> None:
        """Know `targets` by their endpoints' names. Limits are told by the loop's time, which never goes back."""
        self._session = session
        self._targets = targets
        self._clock = clock
        self._time = asyncio.get_running_loop().time
        self._allow_loopback = allow_loopback
        self._gate = Gate()
        self._line = Line()

    async def post(self, message: WebhookMessage) -> WebhookAnswer:
        """Make one attempt; see the port."""
        target = self._targets.get(message.endpoint)
        if target is None:
            raise Fail(f"there is no webhook endpoint {message.endpoint!r}", code="no_endpoint")
        url, lane = target.url, message.endpoint
        if message.url is not None:
            url = self._brought(message.endpoint, message.url, target)
            # One tenant's slow host must not hold up another's; all that one entry stands for share its limits.
            lane = f"{lane} {entry_for(url.raw_host or '', target.hosts)}"
        ticket = await self._enter(lane, target.address.limits, message)
        try:
            return await self._attempt(message, url, target)
        finally:
            self._gate.leave(ticket, self._time())
            self._line.call(lane)

    async def _enter(self, lane: str, limits: Limits, message: WebhookMessage) -> Ticket:
        now = self._time()
        got = self._gate.enter(lane, limits, message.id, now, may_stay=True)
        if isinstance(got, Stay):
            ticket = await self._stay(got, message.id)
            now = self._time()
            got = ticket or self._gate.enter(lane, limits, message.id, now)
        if isinstance(got, Ticket):
            return got
        until = self._clock() + (got.turn if isinstance(got, Stay) else got) - now
        reason = f"the webhook endpoint {message.endpoint!r} has as many messages as it may have"
        raise Defer(reason, until=until, code="endpoint_busy")

    async def _stay(self, stay: Stay, message: str) -> Ticket | None:
        """Wait before the gate until there is room, or it is too late."""
        now, turn, first = self._time(), stay.turn, False
        try:
            while now < stay.end:
                await self._line.wait(stay.lane, min(turn, stay.end) - now, first=first)
                now, first = self._time(), True
                if ticket := self._gate.claim(stay, message, now):
                    return ticket
                turn = self._gate.again(stay, now)
        except asyncio.CancelledError:
            self._gate.give_up(stay)
            self._line.call(stay.lane)  # it may have been called as it was cancelled
            raise
        self._gate.give_up(stay)
        return None

    async def _attempt(self, message: WebhookMessage, url: URL, target: _Target) -> WebhookAnswer:
        headers = signed_headers(message, target.keyring.keys(self._time()), self._clock())
        # Large bytes are written in one go and warned of; a file is written bit by bit.
        body = message.body if len(message.body) < _LARGE else BytesIO(message.body)
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=target.timeout, allow_redirects=False
            ) as response:
                status, answered = response.status, response.headers
                size = await drained(response)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenTarget):
                raise _forbidden(message.endpoint, f"is {error.os_error.problem}") from None
            refusal = refusal_without_answer(message.endpoint, error, target.address.timeout)
            return WebhookAnswer(None, 0, refusal)
        return WebhookAnswer(status, size, refusal_of(message.endpoint, status, answered, self._clock()))

    def _brought(self, endpoint: str, text: str, target: _Target) -> URL:
        try:
            return brought(text, target.hosts, allow_loopback=self._allow_loopback)
        except ForbiddenAddress as error:
            raise _forbidden(endpoint, error.problem) from None


def _forbidden(endpoint: str, problem: str) -> Fail:
    return Fail(f"the address for the webhook endpoint {endpoint!r} {problem}", code="forbidden_address")


def _address(name: str, endpoint: Endpoint, read: Callable[[str], str | None]) -> Address:
    url_from = endpoint.url_env or f"endpoints.{name}.url"
    url = endpoint.url if endpoint.url_env is None else read(endpoint.url_env)
    secret = read(endpoint.secret_env)
    for variable, value in ((url_from, url), (endpoint.secret_env, secret)):
        if not value:
            raise ConfigurationError(f"the webhook endpoint {name!r} needs {variable}, which is not set")
    limits = Limits(endpoint.concurrency, endpoint.per_second)
    return Address(url or "", secret or "", url_from, endpoint.secret_env, endpoint.timeout_seconds, limits)


def _target(name: str, address: Address, *, allow_loopback: bool) -> _Target:
    try:
        url = configured(address.url, allow_loopback=allow_loopback)
    except ForbiddenAddress as error:
        raise ConfigurationError(f"the webhook endpoint {name!r}: {address.url_from} {error.problem}") from None
    try:
        keyring = Keyring(name, address.secret, address.secret_from, address.secret_file)
    except BadSecret as error:
        raise ConfigurationError(f"the webhook endpoint {name!r}: {address.secret_from} {error}") from None
    timeout = aiohttp.ClientTimeout(total=address.timeout)
    return _Target(url, keyring, address, timeout, frozenset(map(plain, address.hosts)))

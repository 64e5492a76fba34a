"""Names to addresses that a webhook may be connected to; asked for every new connection, and answered by DNS each time.

aiohttp connects to what its resolver answers, so an address is connected to as it was checked: a name that points
elsewhere a moment later (DNS rebinding) changes nothing. Host and SNI stay the name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from pipeline.clients.webhook_networks import refusal

THREADS = 64
"""The most names looked up at once; each name is looked up by one thread at a time, so a slow one delays itself. More
than the names that one entry of a tenant's list has in flight, so that none takes them all."""

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""All IP addresses of a name. Raises OSError where it has none, or where nobody answers."""


class ForbiddenTarget(OSError):
    """All addresses of a name are ones that no webhook may go to."""

    def __init__(self, problem: str) -> None:
        """Keep what the first of them is, such as "a private address"."""
        super().__init__(problem)
        self.problem = problem


class SystemLookup:
    """Asks the system, in threads of its own: a slow name server must not hold up who else needs the loop's."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = ThreadPoolExecutor(THREADS, "webhook-dns")
        self._asked: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """Look a name up, or wait for the answer to who asked the same just now."""
        asked = self._asked.get(host)
        if asked is None:
            asked = self._asked[host] = asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host)
            asked.add_done_callback(lambda done: self._answered(host, done))
        # One who gives up must not take the answer from the others.
        return await asyncio.shield(asked)

    def _answered(self, host: str, done: asyncio.Future[Sequence[str]]) -> None:
        self._asked.pop(host, None)
        if not done.cancelled():
            done.exception()  # who asked may be gone; then nobody else takes note of it

    def close(self) -> None:
        """Ask no more; what a name server still owes is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Answers with the allowed ones of a name's addresses."""

    def __init__(self, lookup: Lookup, *, allow_loopback: bool) -> None:
        """Ask `lookup`."""
        self._lookup = lookup
        self._allow_loopback = allow_loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name. Raises OSError where it has no address, and ForbiddenTarget where none is allowed."""
        found = await self.allowed(host)
        return [_result(host, address, port) for address in found if family in {socket.AF_UNSPEC, _family(address)}]

    async def allowed(self, host: str) -> Sequence[str]:
        """Return the addresses of a name that may be used; errors as of `resolve`."""
        found = await self._lookup(host)
        problems = {address: refusal(address, allow_loopback=self._allow_loopback) for address in found}
        allowed = [address for address, problem in problems.items() if not problem]
        if not found:
            raise OSError("the name has no address")
        if not allowed:
            raise ForbiddenTarget(next(iter(problems.values())))
        return allowed

    async def close(self) -> None:
        """Nothing to close: the lookup is somebody else's."""


def guarded_socket(info: tuple[int, int, int, str, tuple[object, ...]], *, allow_loopback: bool) -> socket.socket:
    """Make the socket for an address, the last moment to refuse it: nothing gets by, whoever resolved it.

    aiohttp resolves no host that looks like an address by itself. Raises ForbiddenTarget.
    """
    family, kind, protocol, _, address = info
    problem = refusal(str(address[0]), allow_loopback=allow_loopback)
    if problem:
        raise ForbiddenTarget(problem)
    return socket.socket(family, kind, protocol)


def _addresses(host: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # a name with a label that is too long or empty
        raise OSError("the name cannot be looked up") from None
    # A link-local address comes with its zone, and so is told from one that may be used.
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=_family(address),
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )

"""Where a webhook may go, by what its URL says. What its host's name resolves to is checked at each connection.

https only, to port 443 or to that which the endpoint's own configured URL names; no user, no odd spelling of an IP
address. What is checked is the very object that is connected to: no second parser can read the text another way.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

from yarl import URL

from pipeline.clients.webhook_networks import refusal

PORT = 443
LONGEST = 2_048
"""Characters of a URL."""

_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY = re.compile(r"^[^/?#]*//([^/?#]*)")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


class ForbiddenAddress(ValueError):
    """An address that no webhook may go to. `problem` is what is wrong with it; neither tells the URL."""

    def __init__(self, problem: str) -> None:
        """Keep a part of a sentence that begins with what was configured or brought, such as "must be https"."""
        super().__init__(problem)
        self.problem = problem


def configured(text: str, *, allow_loopback: bool) -> URL:
    """Check the URL that an endpoint is configured with: its port may be any, for the operator wrote it.

    Raises ForbiddenAddress.
    """
    url = _parsed(text)
    _check(url, allow_loopback=allow_loopback)
    if not url.port:
        raise ForbiddenAddress("must not have port 0")
    return url


def brought(text: str, hosts: Collection[str], *, allow_loopback: bool) -> URL:
    """Check the URL that a request brings: its host must be on the list, and its port 443.

    `hosts` are spelt as by `plain`; `*.example.com` is all hosts below example.com. Where loopback is allowed, a
    loopback host may have any port. Raises ForbiddenAddress.
    """
    url = _parsed(text)
    _check(url, allow_loopback=allow_loopback)
    if entry_for(url.raw_host or "", hosts) is None:
        raise ForbiddenAddress("has a host that is not on the list of its tenant")
    if url.port != PORT and not (allow_loopback and is_loopback(url.raw_host or "")):
        raise ForbiddenAddress(f"must have port {PORT}")
    return url


def plain(host: str) -> str:
    """Return the one spelling of a host's name by which names are compared: ASCII, lower case, no dot at the end."""
    try:
        host = URL.build(scheme="https", host=host.strip("[]")).raw_host or ""
    except ValueError:
        return host
    return host.lower().rstrip(".")


def entry_for(host: str, hosts: Collection[str]) -> str | None:
    """Return the entry of a list that stands for `host`: itself, or `*.` and a name that it is below."""
    name = plain(host)
    below = (one for one in hosts if one.startswith("*.") and name.endswith(one[1:]))
    return name if name in hosts else next(below, None)


def is_loopback(host: str) -> bool:
    """Whether a host's name says that it is this machine."""
    try:
        return plain(host) == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _parsed(text: str) -> URL:
    if len(text) > LONGEST:
        raise ForbiddenAddress(f"must not be longer than {LONGEST} characters")
    if _BLANK_OR_CONTROL.search(text):
        raise ForbiddenAddress("must not hold blanks or backslashes")
    authority = _AUTHORITY.match(text)
    if authority and "@" in authority[1]:
        raise ForbiddenAddress("must not hold a user or password")
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        raise ForbiddenAddress("is no https address") from None
    if not url.raw_host or url.scheme not in {"https", "http"} or port is None:
        raise ForbiddenAddress("is no https address")
    return url


def _check(url: URL, *, allow_loopback: bool) -> None:
    host = url.raw_host or ""
    if is_loopback(host):
        if not allow_loopback:
            raise ForbiddenAddress("is on this machine; PIPELINE_ALLOW_LOOPBACK_WEBHOOKS=1 allows that")
    elif url.scheme != "https":
        raise ForbiddenAddress("must be https")
    problem = _problem(host, allow_loopback=allow_loopback)
    if problem:
        raise ForbiddenAddress(problem)


def _problem(host: str, *, allow_loopback: bool) -> str:
    """Judge a host as the URL spells it: an address in its one usual form, or a name that DNS can know."""
    if ":" in host or _is_dotted_quad(host):
        named = refusal(host, allow_loopback=allow_loopback)
        return f"must not be {named}" if named else ""
    name = host.lower().removesuffix(".")
    if not _NAME.fullmatch(name):
        return "has a host that is no name"
    # The WHATWG URL standard: a host whose last label is a number is an IPv4 address, in whatever spelling.
    return "spells an IP address in an odd way" if _NUMBER.fullmatch(name.rpartition(".")[2]) else ""


def _is_dotted_quad(host: str) -> bool:
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False

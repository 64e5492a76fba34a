"""The SSRF table: what a webhook's address may look like, and why none of it leads into our own network.

Each row goes through the real sender, by a request whose tenant has that very host on its list, and through the check
of an endpoint that is configured so. Names are resolved as the rows say; no row may make a socket.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest

from pipeline.clients import webhook
from pipeline.clients.webhook import Address, check_endpoint, open_webhooks
from pipeline.clients.webhook_address import plain
from pipeline.clients.webhook_resolver import ForbiddenTarget, guarded_socket
from pipeline.clients.webhook_signing import generate_secret
from pipeline.core.errors import Fail, Outcome
from pipeline.core.ports import WebhookMessage

SECRET = generate_secret()
PUBLIC, LOOPBACK = "8.8.8.8", "127.0.0.1"
OURS = "hooks.example.com"
"""A good host, that of the endpoint."""


class Row(NamedTuple):
    """A host as a URL spells it, and the addresses that a name server gives for it, where it is asked."""

    host: str
    addresses: tuple[str, ...] = (PUBLIC,)


TABLE = {
    "loopback": Row("127.0.0.1"),
    "loopback, all of it": Row("127.200.0.1"),
    "loopback by name": Row("localhost", (LOOPBACK,)),
    "loopback by name with a dot": Row("localhost.", (LOOPBACK,)),
    "loopback below its name": Row("app.localhost", (LOOPBACK,)),
    "loopback, IPv6": Row("[::1]"),
    "loopback, IPv6 in full": Row("[0:0:0:0:0:0:0:1]"),
    "any address": Row("0.0.0.0"),
    "any address, IPv6": Row("[::]"),
    "this network": Row("0.1.2.3"),
    "zero": Row("0"),
    "decimal": Row("2130706433"),
    "decimal of a public address": Row("134744072"),
    "decimal too large": Row("4429185025"),
    "hexadecimal": Row("0x7f000001"),
    "hexadecimal parts": Row("0x7f.0x0.0x0.0x1"),
    "hexadecimal last part": Row("127.0.0.0x1"),
    "octal": Row("017700000001"),
    "octal parts": Row("0177.0.0.1"),
    "leading zeros": Row("127.000.000.001"),
    "two parts": Row("127.1"),
    "three parts": Row("10.0.1"),
    "five parts": Row("127.0.0.1.1"),
    "trailing dot": Row("127.0.0.1."),
    "wide dots": Row("127。0。0。1"),
    "half-wide dots": Row("127｡0｡0｡1"),
    "circled digits": Row("①②⑦.0.0.1"),
    "full-width digits": Row("１２７.0.0.1"),
    "circled name": Row("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", (LOOPBACK,)),
    "percent-encoded": Row("%31%32%37.0.0.1"),
    "v4-mapped": Row("[::ffff:127.0.0.1]"),
    "v4-mapped in hexadecimal": Row("[::ffff:7f00:1]"),
    "v4-mapped, private": Row("[::ffff:10.0.0.1]"),
    "v4-mapped, public": Row("[::ffff:8.8.8.8]"),
    "v4-compatible": Row("[::127.0.0.1]"),
    "NAT64 of loopback": Row("[64:ff9b::127.0.0.1]"),
    "NAT64 of metadata": Row("[64:ff9b::a9fe:a9fe]"),
    "NAT64, local": Row("[64:ff9b:1::808:808]"),
    "6to4": Row("[2002:7f00:1::1]"),
    "6to4 of a private address": Row("[2002:a00:1::1]"),
    "Teredo": Row("[2001:0:7f00:1::1]"),
    "zone": Row("[fe80::1%eth0]"),
    "zone, encoded": Row("[fe80::1%25eth0]"),
    "zone of a public address": Row("[2606:4700::1111%25eth0]"),
    "private 10/8": Row("10.0.0.1"),
    "private 172.16/12": Row("172.16.0.1"),
    "private 192.168/16": Row("192.168.0.1"),
    "unique local": Row("[fd12:3456::1]"),
    "site local": Row("[fec0::1]"),
    "link-local": Row("169.254.0.1"),
    "link-local, IPv6": Row("[fe80::1]"),
    "metadata": Row("169.254.169.254"),
    "metadata, decimal": Row("2852039166"),
    "metadata, IPv6": Row("[fd00:ec2::254]"),
    "metadata by name": Row("metadata.google.internal", ("169.254.169.254",)),
    "metadata by a name of one's own": Row("metadata.evil.example", ("169.254.169.254",)),
    "metadata, IPv6, by name": Row("metadata.evil.example", ("fd00:ec2::254",)),
    "metadata of Azure": Row("168.63.129.16"),
    "metadata of Alibaba": Row("100.100.100.200"),
    "carrier-grade NAT": Row("100.64.0.1"),
    "multicast": Row("224.0.0.1"),
    "multicast, IPv6": Row("[ff02::1]"),
    "broadcast": Row("255.255.255.255"),
    "reserved": Row("240.0.0.1"),
    "reserved, IPv6": Row("[4000::1]"),
    "protocol assignments": Row("192.0.0.1"),
    "benchmarks": Row("198.18.0.1"),
    "benchmarks, IPv6": Row("[2001:2::1]"),
    "documentation 1": Row("192.0.2.1"),
    "documentation 2": Row("198.51.100.1"),
    "documentation 3": Row("203.0.113.1"),
    "documentation, IPv6": Row("[2001:db8::1]"),
    "discard, IPv6": Row("[100::1]"),
    "a name for a private address": Row("inside.evil.example", ("10.0.0.1",)),
    "a name for a mapped address": Row("inside.evil.example", ("::ffff:10.0.0.1",)),
    "a name for a zone": Row("inside.evil.example", ("fe80::1%2",)),
    "a name for two private addresses": Row("inside.evil.example", ("10.0.0.1", "fd12::1")),
    "a name in our cluster": Row("kubernetes.default.svc", ("10.96.0.1",)),
    "a name without a dot": Row("kafka", ("172.18.0.2",)),
    "no name": Row("a..b"),
    "a blank": Row("exa mple.com"),
    "a null": Row("example.com\x00"),
}

URLS = {
    "http": "http://hooks.example.com/",
    "another scheme": "ftp://hooks.example.com:443/",
    "a file": "file:///etc/passwd",
    "no scheme": "hooks.example.com",
    "a user": "https://user@hooks.example.com/",
    "a password": "https://user:word@hooks.example.com/",
    "a host as user": "https://hooks.example.com@10.0.0.1/",
    "an empty user": "https://@hooks.example.com/",
    "a backslash": "https://10.0.0.1\\@hooks.example.com/",
    "a line feed": "https://hooks.example.com/\nhost: 10.0.0.1",
    "port 80": "https://hooks.example.com:80/",
    "port of ssh": "https://hooks.example.com:22/",
    "port of Redis": "https://hooks.example.com:6379/",
    "port of a broker": "https://hooks.example.com:9092/",
    "port 8443": "https://hooks.example.com:8443/",
    "port 0": "https://hooks.example.com:0/",
    "another host": "https://evil.example/",
    "a host below": "https://evil.hooks.example.com/",
}
"""What is refused though its host is on the list and public, or because it is not on the list."""


@dataclass
class Names:
    """A name server that answers alike, or with one answer after the other; `asked` is what it was asked."""

    answers: Sequence[Sequence[str]]
    asked: int = 0

    async def __call__(self, _host: str) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The addresses that sockets were made for; to none of them is a connection made."""
    made: list[object] = []

    def factory(info: tuple[int, int, int, str, tuple[object, ...]], *, allow_loopback: bool) -> socket.socket:
        guarded_socket(info, allow_loopback=allow_loopback).close()
        made.append(info[4])
        raise OSError("no test leaves this machine")

    monkeypatch.setattr(webhook, "guarded_socket", factory)
    return made


async def post(url: str, names: Names, hosts: Sequence[str], times: int = 1) -> list[Outcome]:
    """Post to a URL that a request brings; returns what came of it, of which nothing was a success."""
    endpoint = Address(f"https://{OURS}/", SECRET, hosts=frozenset(hosts))
    outcomes: list[Outcome] = []
    async with open_webhooks({"ours": endpoint}, allow_loopback=False, clock=time.time, lookup=names) as sender:
        for number in range(times):
            try:
                answer = await sender.post(WebhookMessage("ours", f"id-{number}", b"{}", url))
                assert answer.refusal is not None
                outcomes.append(answer.refusal)
            except Fail as failed:
                outcomes.append(failed)
    assert not any(url in outcome.reason for outcome in outcomes)
    return outcomes


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.code for outcome in outcomes]


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_no_host_leads_inside(row: Row, sockets: list[object]) -> None:
    """However an address is spelt or resolved: refused when brought, refused when configured, no socket made."""
    url = f"https://{row.host}/"
    outcomes = await post(url, Names([row.addresses]), [row.host, plain(row.host)])
    assert codes(outcomes) == ["forbidden_address"]
    assert "list of its tenant" not in outcomes[0].reason
    found = await check_endpoint("ours", Address(url, SECRET), allow_loopback=False, lookup=Names([row.addresses]))
    assert found.problem
    assert found.addresses == ()
    assert sockets == []


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
async def test_no_url_leads_elsewhere(url: str, sockets: list[object]) -> None:
    """Only https, only to the host on the list, only to port 443."""
    assert codes(await post(url, Names([[PUBLIC]]), [OURS])) == ["forbidden_address"]
    assert sockets == []


async def test_of_several_addresses_only_the_good_are_used(sockets: list[object]) -> None:
    """One bad address does not make a name unusable, but is never connected to."""
    outcomes = await post(f"https://{OURS}/", Names([["10.0.0.1", PUBLIC, "::1", "2606:4700::1"]]), [OURS])
    assert codes(outcomes) == ["webhook_unreachable"]
    assert {str(address[0]) for address in sockets if isinstance(address, tuple)} == {PUBLIC, "2606:4700::1"}


async def test_a_name_that_is_bound_anew_leads_nowhere(sockets: list[object]) -> None:
    """DNS rebinding: public at first, loopback afterwards. What was checked is connected to, and asked anew each time.

    A name that is checked when the URL is read and looked up again when it is connected to would pass the check.
    """
    names = Names([[PUBLIC], [LOOPBACK]])
    outcomes = await post(f"https://{OURS}/", names, [OURS], times=3)
    assert codes(outcomes) == ["webhook_unreachable", "forbidden_address", "forbidden_address"]
    assert names.asked == 3
    assert sockets == [(PUBLIC, 443)]


async def test_the_endpoint_itself_is_asked_anew_each_time(sockets: list[object]) -> None:
    """A configured name may be bound anew, too."""
    endpoint, names = Address(f"https://{OURS}/", SECRET), Names([[PUBLIC], ["10.0.0.1"]])
    async with open_webhooks({"ours": endpoint}, allow_loopback=False, clock=time.time, lookup=names) as sender:
        answer = await sender.post(WebhookMessage("ours", "id", b"{}"))
        assert answer.refusal is not None
        assert answer.refusal.code == "webhook_unreachable"
        with pytest.raises(Fail, match="is a private address") as failed:
            await sender.post(WebhookMessage("ours", "id", b"{}"))
    assert failed.value.code == "forbidden_address"
    assert OURS not in failed.value.reason


async def test_the_socket_is_the_last_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an address to get by both checks, no connection to it would be made."""
    monkeypatch.setattr("pipeline.clients.webhook_address.refusal", lambda *_, **__: "")
    monkeypatch.setattr("pipeline.clients.webhook_address.is_loopback", lambda _: False)
    assert codes(await post("https://127.0.0.1/", Names([[]]), [LOOPBACK])) == ["forbidden_address"]
    with pytest.raises(ForbiddenTarget):
        partial(guarded_socket, allow_loopback=False)((socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, 443)))


async def test_a_good_endpoint_passes_its_check() -> None:
    """It is told where it would be reached, and by which keys it is verified; nothing is posted."""
    private = generate_secret("v1a")
    address = Address(f"https://{OURS}:8443/in", f"{SECRET} {private}")
    found = await check_endpoint("ours", address, allow_loopback=False, lookup=Names([[PUBLIC, "10.0.0.1"]]))
    assert found.problem == ""
    assert found.addresses == (PUBLIC,)
    assert found.keys == ("v1", webhook.public_key(private))


async def test_a_check_tells_of_a_name_without_address() -> None:
    """In words that a person can act on."""

    async def unknown(_host: str) -> Sequence[str]:
        raise OSError("Name or service not known")

    found = await check_endpoint("ours", Address(f"https://{OURS}/", SECRET), allow_loopback=False, lookup=unknown)
    assert found.problem == f"the name {OURS} has no address"


@pytest.mark.virtual
async def test_a_check_does_not_wait_for_ever() -> None:
    """A name server that says nothing is told of after the endpoint's time."""

    async def silent(_host: str) -> Sequence[str]:
        await asyncio.sleep(9_999)
        return []

    found = await check_endpoint("ours", Address(f"https://{OURS}/", SECRET), allow_loopback=False, lookup=silent)
    assert found.problem == f"the name {OURS} was not resolved within 20 s"

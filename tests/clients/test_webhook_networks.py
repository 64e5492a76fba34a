"""Tests of pipeline/clients/webhook_networks.py."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients.webhook_networks import refusal
from tests.examples import at_most

REFUSED = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "10.1.2.3": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "fc00::1": "private",
    "fd12:3456:789a::1": "private",
    "fec0::1": "private",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "one zone",
    "2606:4700::1%1": "one zone",
    "169.254.169.254": "metadata",
    "168.63.129.16": "metadata",
    "100.100.100.200": "metadata",
    "192.0.0.192": "metadata",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "100.64.0.1": "carrier",
    "100.127.255.255": "carrier",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "192.0.0.8": "reserved",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "ff02::1": "multicast",
    "192.0.2.1": "documentation",
    "198.51.100.7": "documentation",
    "203.0.113.9": "documentation",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "2001:2::1": "benchmarks",
    "192.88.99.1": "6to4 relay",
    "2002:7f00:1::1": "6to4",
    "2002:808:808::1": "6to4",
    "2001::1": "Teredo",
    "2001:0:7f00:1::": "Teredo",
    "2001:10::1": "reserved",
    "2001:20::1": "reserved",
    "::ffff:127.0.0.1": "written as IPv6",
    "::ffff:8.8.8.8": "written as IPv6",
    "::ffff:a00:1": "written as IPv6",
    "::127.0.0.1": "written as IPv6",
    "::8.8.8.8": "written as IPv6",
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::a9fe:a9fe": "metadata",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b:1::8.8.8.8": "translated",
    "100::1": "reserved",
    "5f00::1": "reserved",
    "4000::1": "reserved",
    "": "no IP address",
    "localhost": "no IP address",
    "2130706433": "no IP address",
    "127.1": "no IP address",
    "0177.0.0.1": "no IP address",
    "0x7f.0.0.1": "no IP address",
    "127.0.0.1.": "no IP address",
}


@pytest.mark.parametrize("address,named", REFUSED.items(), ids=REFUSED)
def test_what_is_not_public_is_refused_and_named(address: str, named: str) -> None:
    """Each kind of address that is not of the public internet is refused, by the name that people know."""
    assert named in refusal(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "2001:4860::1"]
)
def test_what_is_public_may_be_used(address: str) -> None:
    """An address next to a refused network is not refused with it."""
    assert refusal(address) == ""


def test_the_ipv4_internet_may_be_reached_by_nat64() -> None:
    """A host without IPv4 reaches a public IPv4 address as 64:ff9b::/96 (RFC 6052)."""
    assert refusal("64:ff9b::8.8.8.8") == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_can_be_allowed(address: str) -> None:
    """For a receiver on this machine."""
    assert refusal(address, allow_loopback=True) == ""


@pytest.mark.parametrize("address", [one for one in REFUSED if not one.startswith("127.") and one != "::1"])
def test_allowing_loopback_allows_nothing_else(address: str) -> None:
    """Neither another network nor loopback in disguise."""
    assert refusal(address, allow_loopback=True)


@settings(max_examples=at_most(50))
@given(st.ip_addresses())
def test_nothing_is_allowed_that_python_calls_private(address: IPv4Address | IPv6Address) -> None:
    """The tables are no laxer than those of the standard library, of any address."""
    if refusal(str(address)) == "":
        inner = ip_address(int(address) & 0xFFFFFFFF) if str(address).startswith("64:ff9b::") else address
        assert inner.is_global
        assert not inner.is_multicast

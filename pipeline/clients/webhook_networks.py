"""Which IP addresses a webhook may go to: those of the public internet, and nothing else. Pure.

The tables are IANA's special-purpose registries (RFC 6890 and what followed), written out: what Python itself calls
global differs between its versions. Of IPv6 only 2000::/3 is in public use, so all else is refused without a name.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the IPv4 internet as a host without IPv4 sees it. What counts is the IPv4 address inside."""

_NAMED: tuple[tuple[Network, str], ...] = (
    (IPv4Network("169.254.169.254/32"), "a cloud's metadata address"),
    (IPv4Network("168.63.129.16/32"), "a cloud's metadata address"),  # Azure's, in the midst of public addresses
    (IPv4Network("100.100.100.200/32"), "a cloud's metadata address"),  # Alibaba's
    (IPv4Network("192.0.0.192/32"), "a cloud's metadata address"),  # Oracle's
    (IPv6Network("fd00:ec2::254/128"), "a cloud's metadata address"),
    (IPv6Network("fd20:ce::254/128"), "a cloud's metadata address"),
    (IPv4Network("0.0.0.0/8"), "an unspecified address"),
    (IPv4Network("10.0.0.0/8"), "a private address"),
    (IPv4Network("100.64.0.0/10"), "an address of a carrier's own network"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("169.254.0.0/16"), "a link-local address"),
    (IPv4Network("172.16.0.0/12"), "a private address"),
    (IPv4Network("192.0.0.0/24"), "a reserved address"),
    (IPv4Network("192.0.2.0/24"), "an address of documentation"),
    (IPv4Network("192.88.99.0/24"), "a 6to4 relay"),
    (IPv4Network("192.168.0.0/16"), "a private address"),
    (IPv4Network("198.18.0.0/15"), "an address of benchmarks"),
    (IPv4Network("198.51.100.0/24"), "an address of documentation"),
    (IPv4Network("203.0.113.0/24"), "an address of documentation"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("255.255.255.255/32"), "the broadcast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved address"),
    (IPv6Network("::/128"), "an unspecified address"),
    (IPv6Network("::1/128"), "a loopback address"),
    (IPv6Network("::ffff:0:0/96"), "an IPv4 address written as IPv6"),
    (IPv6Network("::/96"), "an IPv4 address written as IPv6"),
    (IPv6Network("64:ff9b:1::/48"), "a translated address"),
    (IPv6Network("fc00::/7"), "a private address"),
    (IPv6Network("fe80::/10"), "a link-local address"),
    (IPv6Network("fec0::/10"), "a private address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
    (IPv6Network("2001::/32"), "a Teredo address"),
    (IPv6Network("2001:2::/48"), "an address of benchmarks"),
    (IPv6Network("2001:db8::/32"), "an address of documentation"),
    (IPv6Network("3fff::/20"), "an address of documentation"),
    (IPv6Network("2001::/23"), "a reserved address"),
    (IPv6Network("2002::/16"), "a 6to4 address"),
)
"""The first that holds an address names it."""

_PUBLIC = IPv6Network("2000::/3")


def refusal(address: str, *, allow_loopback: bool = False) -> str:
    """Say what speaks against connecting to an IP address; empty where nothing does.

    What cannot be read as an address is refused, an IPv6 address with a zone too. `allow_loopback` permits 127.0.0.0/8
    and ::1, but in no disguise.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return "no IP address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return "an address of one zone"
    if allow_loopback and (ip == IPv6Address("::1") or ip in IPv4Network("127.0.0.0/8")):
        return ""
    if ip in _NAT64:
        ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    return _name(ip)


def _name(ip: IPv4Address | IPv6Address) -> str:
    named = next((name for network, name in _NAMED if ip.version == network.version and ip in network), "")
    if not named and isinstance(ip, IPv6Address) and ip not in _PUBLIC:
        return "a reserved address"
    return named

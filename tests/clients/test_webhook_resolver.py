"""Tests of pipeline/clients/webhook_resolver.py."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from pipeline.clients import webhook_resolver
from pipeline.clients.webhook_resolver import ForbiddenTarget, GuardedResolver, SystemLookup, guarded_socket


def resolver(*addresses: str, allow_loopback: bool = False) -> GuardedResolver:
    """Make one for which every name has these addresses."""

    async def lookup(_host: str) -> Sequence[str]:
        return addresses

    return GuardedResolver(lookup, allow_loopback=allow_loopback)


async def test_only_allowed_addresses_are_answered() -> None:
    """A name with one good address is reached at that one alone."""
    answers = await resolver("10.0.0.1", "8.8.8.8", "::1", "2606:4700::1").resolve("mixed.example", 443)
    assert [(one["host"], one["port"], one["family"]) for one in answers] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1", 443, socket.AF_INET6),
    ]
    assert {one["hostname"] for one in answers} == {"mixed.example"}
    assert len(await resolver("8.8.8.8", "2606:4700::1").resolve("mixed.example", 443, socket.AF_INET)) == 1


async def test_a_name_without_an_allowed_address_is_refused() -> None:
    """And it is told what its first address is."""
    with pytest.raises(ForbiddenTarget, match="a private address"):
        await resolver("10.0.0.1", "127.0.0.1").resolve("inside.example", 443)
    with pytest.raises(OSError, match="no address"):
        await resolver().resolve("nobody.example", 443)
    assert await resolver("127.0.0.1", allow_loopback=True).resolve("inside.example", 443)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "2130706433", "junk"])
def test_no_socket_is_made_for_a_forbidden_address(address: str) -> None:
    """The last guard holds whoever resolved the address: no resolver is asked for one that is written as a number."""
    with pytest.raises(ForbiddenTarget):
        guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)), allow_loopback=False)


def test_a_socket_is_made_for_an_allowed_address() -> None:
    """It is not connected yet."""
    with guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)), allow_loopback=False) as made:
        assert made.family == socket.AF_INET


async def test_the_system_knows_this_machine() -> None:
    """Names are looked up as all programs look them up; what is no name is an error like any other."""
    lookup = SystemLookup()
    assert set(await lookup("localhost")) & {"127.0.0.1", "::1"}
    for junk in ("a..b", "a" * 70):
        with pytest.raises(OSError, match="looked up"):
            await lookup(junk)
    lookup.close()


async def test_a_slow_name_server_delays_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for a slow name, one thread waits for it; who gives up takes the answer from nobody."""
    go, asked = threading.Event(), list[str]()

    def addresses(host: str) -> Sequence[str]:
        asked.append(host)
        if host == "slow.example":
            assert go.wait(20)
        return ["8.8.8.8"]

    monkeypatch.setattr(webhook_resolver, "_addresses", addresses)
    lookup = SystemLookup()
    waiting = [asyncio.create_task(lookup("slow.example")) for _ in range(100)]
    await asyncio.sleep(0)
    assert await lookup("quick.example") == ["8.8.8.8"]
    waiting[0].cancel()
    go.set()
    assert await asyncio.gather(*waiting[1:]) == [["8.8.8.8"]] * 99
    assert asked.count("slow.example") == 1
    assert await lookup("slow.example") == ["8.8.8.8"]
    assert asked.count("slow.example") == 2
    lookup.close()

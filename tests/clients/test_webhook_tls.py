"""Webhooks over TLS: a certificate that nobody trusts is refused, and the name stays the name."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.clients.webhook import Address, open_webhooks
from pipeline.core.ports import WebhookAnswer
from pipeline.devkit.certificate import Certificate, self_signed
from pipeline.devkit.ports import HOST
from pipeline.devkit.receiver import Receiver, ReceiverConfig, new_secret, receiver
from tests.contracts.webhook_sender_contract import MESSAGE

pytestmark = pytest.mark.local

SECRET = new_secret()
NAME = "hooks.example.com"


@asynccontextmanager
async def presenting(certificate: Certificate) -> AsyncIterator[tuple[Receiver, list[str | None]]]:
    """Run a receiver with a certificate; yields it, and the names that it is asked for (SNI)."""
    asked: list[str | None] = []
    context = certificate.server()
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with receiver(ReceiverConfig(SECRET, tls=context)) as server:
        yield server, asked


async def post(server: Receiver, tls: ssl.SSLContext | None, name: str = NAME) -> WebhookAnswer:
    """Post to a name that is resolved to this machine."""

    async def lookup(_host: str) -> Sequence[str]:
        return [HOST]

    address = Address(server.url.replace(HOST, name), SECRET)
    async with open_webhooks(
        {"default": address}, allow_loopback=True, clock=time.time, lookup=lookup, tls=tls
    ) as sender:
        return await sender.post(MESSAGE)


async def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    """Nothing is posted, and the reason says what is wrong; it may be mended, so it is an attempt."""
    async with presenting(self_signed(NAME, tmp_path)) as (server, asked):
        answer = await post(server, None)
        assert server.received == []
    assert asked == [NAME]
    assert answer.status is None
    assert answer.refusal is not None
    assert answer.refusal.code == "webhook_tls"
    assert "certificate" in answer.refusal.reason
    assert NAME not in answer.refusal.reason


@pytest.mark.parametrize("wrong", ["name", "time"])
async def test_a_trusted_certificate_must_be_right(wrong: str, tmp_path: Path) -> None:
    """One for another name, or of a time that is over, is refused, too."""
    certificate = self_signed("other.example.com" if wrong == "name" else NAME, tmp_path, 1 if wrong == "name" else -1)
    async with presenting(certificate) as (server, _):
        answer = await post(server, certificate.trusting())
        assert server.received == []
    assert answer.refusal is not None
    assert answer.refusal.code == "webhook_tls"


@pytest.mark.parametrize("spelt", [NAME, f"{NAME}."])
async def test_the_name_stays_the_name(spelt: str, tmp_path: Path) -> None:
    """Connected to a checked address, the receiver is asked for the name: in TLS (SNI) and in HTTP (Host)."""
    certificate = self_signed(NAME, tmp_path)
    async with presenting(certificate) as (server, asked):
        assert (await post(server, certificate.trusting(), spelt)).status == 204
        (delivery,) = server.received
    assert asked == [NAME]
    assert delivery.headers["host"].rpartition(":")[0].rstrip(".") == NAME


async def test_a_receiver_without_tls_is_refused() -> None:
    """What does not speak TLS is not spoken to otherwise."""
    async with receiver(ReceiverConfig(SECRET)) as server:
        server.base_url = server.base_url.replace("http:", "https:")
        answer = await post(server, None)
        assert server.received == []
    assert answer.refusal is not None
    assert answer.refusal.code == "webhook_tls"

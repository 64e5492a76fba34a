"""Tests of pipeline/devkit/receiver_orders.py: how answers are spoilt. Which is obeyed, see test_receiver.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from pipeline.devkit import receiver_orders
from pipeline.devkit.ports import HOST
from pipeline.devkit.receiver import HookFailure, Receiver, ReceiverConfig, new_secret, receiver

pytestmark = pytest.mark.local

SECRET = new_secret()


@asynccontextmanager
async def answering(order: HookFailure) -> AsyncIterator[tuple[Receiver, asyncio.StreamReader]]:
    """Post one delivery by hand, under an order; yields what comes back."""
    async with receiver(ReceiverConfig(SECRET)) as running:
        running.fail(order)
        now = datetime.now(UTC)
        head = {
            "host": HOST,
            "content-length": "2",
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(SECRET).sign("evt_1", now, "{}"),
        }
        reader, writer = await asyncio.open_connection(HOST, int(running.base_url.rpartition(":")[2]))
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"POST /hooks/default HTTP/1.1\r\n{lines}\r\n{{}}".encode())
        yield running, reader
        writer.close()


async def test_a_redirect_leads_where_it_was_told() -> None:
    """To a metadata address, for one."""
    order = HookFailure(status=302, location="http://169.254.169.254/latest/meta-data/")
    async with answering(order) as (_, reader):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 302 ")
    assert b"location: http://169.254.169.254/latest/meta-data/" in head.lower()


async def test_a_dripping_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status line comes byte by byte; until it is there nobody knows what became of the delivery."""
    monkeypatch.setattr(receiver_orders, "DRIP_SECONDS", 0.001)
    async with answering(HookFailure(trick="drip")) as (running, reader):
        assert await reader.readexactly(1) == b"H"
        assert (await reader.read()).startswith(b"TTP/1.1 200 Dripping\r\n")
        assert running.received[0].status == 0
        assert running.received[0].accepted


async def test_a_dripping_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head comes at once, the body byte by byte."""
    monkeypatch.setattr(receiver_orders, "DRIP_SECONDS", 0.001)
    async with answering(HookFailure(trick="drip body")) as (_, reader):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(3) == b"xxx"


async def test_an_endless_body() -> None:
    """It goes on as long as somebody reads."""
    async with answering(HookFailure(status=500, trick="endless")) as (_, reader):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 500 ")
        assert len(await reader.readexactly(1_000_000)) == 1_000_000


async def test_an_early_end() -> None:
    """A thousand bytes are announced, and the connection ends after the first."""
    async with answering(HookFailure(trick="early end")) as (_, reader):
        assert b"content-length: 1000" in (await reader.readuntil(b"\r\n\r\n")).lower()
        assert await reader.read() == b"x"


def test_orders_can_be_written() -> None:
    """As JSON, as other processes give them."""
    order = HookFailure(trick="endless", times=None)
    assert receiver_orders.ORDERS.validate_json(json.dumps([order.model_dump()])) == [order]

"""Serving on the loopback address."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from pipeline.devkit.listen import PortInUse, listening

pytestmark = pytest.mark.local


async def _hello(http: web.Request) -> web.Response:
    return web.Response(text="hello")


def _app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", _hello)
    return app


async def _get(port: int) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as answer:
        return await answer.text()


async def test_a_free_port_is_taken_and_given_back() -> None:
    """Port 0 takes a free one; after the block nothing listens there."""
    async with listening(_app(), 0, "test server") as port:
        assert await _get(port) == "hello"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_in_use_is_named() -> None:
    """Two servers on one port: the second says which port, and what to do."""
    async with listening(_app(), 0, "first server") as port:
        with pytest.raises(
            PortInUse, match=rf"second server cannot listen on 127\.0\.0\.1:{port}.*in use.*another port"
        ):
            async with listening(_app(), port, "second server"):
                pass


async def test_a_port_can_be_taken_again_at_once() -> None:
    """A server can be restarted on its port, even with connections of the last one still around."""
    async with listening(_app(), 0, "server") as port:
        assert await _get(port) == "hello"
    async with listening(_app(), port, "server") as again:
        assert again == port

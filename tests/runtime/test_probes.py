"""The probes of a process, over HTTP."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from pipeline.core.errors import ConfigurationError
from pipeline.runtime.probes import Probed, serve_probes

pytestmark = pytest.mark.local


@dataclass
class Part:
    """Something with a state."""

    name: str
    ready: bool
    state: str

    def status(self) -> tuple[str, bool, str]:
        return self.name, self.ready, self.state


async def get(url: str) -> tuple[int, str]:
    """Fetch a page."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_it_lives_while_its_loop_turns() -> None:
    """`/livez` says so whatever the parts say."""
    async with serve_probes("127.0.0.1", 0, [Part("infer", False, "halted: no")], CollectorRegistry()) as url:
        assert await get(f"{url}/livez") == (200, '{"live": true}')


async def test_it_is_ready_when_every_part_is() -> None:
    """`/readyz` is 503 as long as one part does not do its work, and names the state of each."""
    parts: list[Probed] = [infer := Part("infer", True, "running"), Part("notify", True, "running")]
    async with serve_probes("127.0.0.1", 0, parts, CollectorRegistry()) as url:
        assert (await get(f"{url}/readyz"))[0] == 200
        infer.ready, infer.state = False, "waiting for the broker"
        status, text = await get(f"{url}/readyz")
    assert status == 503
    assert '"ready": false' in text
    assert '{"name": "infer", "ready": false, "state": "waiting for the broker"}' in text
    assert '{"name": "notify", "ready": true, "state": "running"}' in text


async def test_a_process_without_parts_is_not_ready() -> None:
    """Nothing at work is no reason for traffic."""
    async with serve_probes("127.0.0.1", 0, [], CollectorRegistry()) as url:
        assert (await get(f"{url}/readyz"))[0] == 503


async def test_metrics_are_those_of_the_registry() -> None:
    """`/metrics` is Prometheus text with its content type."""
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc(3)
    async with (
        serve_probes("127.0.0.1", 0, [], registry) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as response,
    ):
        assert response.headers["Content-Type"].startswith("text/plain")
        assert "things_total 3.0" in await response.text()


async def test_a_port_in_use_is_named_with_its_cure() -> None:
    """The sentence names the variable, the port and what to do."""
    async with serve_probes("127.0.0.1", 0, [], CollectorRegistry()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=rf"PIPELINE_PROBES_PORT: .*127\.0\.0\.1:{port} .*unset"):
            async with serve_probes("127.0.0.1", port, [], CollectorRegistry()):
                pass


async def test_any_other_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files is no matter of configuration."""

    async def start(_: web.TCPSite) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(web.TCPSite, "start", start)
    with pytest.raises(OSError, match="too many open files"):
        async with serve_probes("127.0.0.1", 0, [], CollectorRegistry()):
            pass


async def test_nothing_listens_after_the_block() -> None:
    """The port is free again."""
    async with serve_probes("127.0.0.1", 0, [], CollectorRegistry()) as url:
        port = int(url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

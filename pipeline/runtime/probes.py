"""Probes of one process over HTTP: `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from pipeline.core.errors import ConfigurationError


class Probed(Protocol):
    """Something that runs and can say how it is."""

    def status(self) -> tuple[str, bool, str]:
        """Return its name, whether it does its work, and its state in words."""
        ...


@asynccontextmanager
async def serve_probes(
    host: str, port: int, parts: Sequence[Probed], registry: CollectorRegistry
) -> AsyncIterator[str]:
    """Serve the probes of `parts` while the block runs; yields the base URL. Port 0 takes a free one.

    `/livez` answers while the event loop turns; `/readyz` is 200 when every part does its work, else 503, and names
    each part's state; `/metrics` is Prometheus text. Raises ConfigurationError where the port is in use.
    """
    application = web.Application()

    async def ready(_: web.Request) -> web.Response:
        return _ready(parts)

    async def metrics(_: web.Request) -> web.Response:
        return _metrics(registry)

    application.router.add_get("/livez", _live)
    application.router.add_get("/readyz", ready)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        bound: int = runner.addresses[0][1]
        yield f"http://{host}:{bound}"
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
            raise
        raise ConfigurationError(
            f"PIPELINE_PROBES_PORT: cannot listen on {host}:{port} ({error.strerror}); stop what uses the port, "
            "choose another one, or unset the variable to take a free one"
        ) from None


async def _live(_: web.Request) -> web.Response:
    return web.json_response({"live": True})


def _ready(parts: Sequence[Probed]) -> web.Response:
    states: list[Mapping[str, object]] = []
    for part in parts:
        name, ready, state = part.status()
        states.append({"name": name, "ready": ready, "state": state})
    ready = bool(states) and all(state["ready"] for state in states)
    return web.json_response({"ready": ready, "parts": states}, status=200 if ready else 503)


def _metrics(registry: CollectorRegistry) -> web.Response:
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

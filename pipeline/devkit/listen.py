"""Serving an aiohttp application on the loopback address for as long as a block runs."""

import errno
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.ports import HOST

# Enough for thousands of connections that are opened at once.
_BACKLOG = 4096
# Calls that still run at the end are cancelled after this time, as some are slow on purpose.
_SHUTDOWN_SECONDS = 0.2


class PortInUse(ConfigurationError):
    """A fixed port that something else listens on."""

    def __init__(self, what: str, port: int) -> None:
        super().__init__(
            f"The {what} cannot listen on {HOST}:{port}, as the port is in use:"
            " stop what listens there, or choose another port (0 takes a free one)."
        )


@asynccontextmanager
async def listening(
    app: web.Application, port: int, what: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve `app` on 127.0.0.1 and yield the port; 0 takes a free one. With `tls` it speaks https.

    A handler is cancelled when its client goes. Raises `PortInUse` with `what`, the name of the server for people.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await _start(runner, port, what, tls)
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _start(runner: web.AppRunner, port: int, what: str, tls: ssl.SSLContext | None) -> None:
    try:
        await web.TCPSite(runner, HOST, port, backlog=_BACKLOG, ssl_context=tls).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(what, port) from None
        raise

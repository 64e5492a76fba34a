"""A proxy between the clients and the broker, which can be slow or cut every connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipeline.devkit.ports import HOST

_CHUNK = 65_536


@dataclass
class Proxy:
    """Passes bytes on to a port on the loopback address, `delay` seconds late in each direction."""

    port: int
    target: int = 0
    delay: float = 0.0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> int:
        """End all connections in the middle of whatever they carry; returns how many there were."""
        count = len(self._open)
        for writer in self._open:
            writer.transport.abort()
        return count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            there, back = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        mine = {writer, back}
        self._open |= mine
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            self._open -= mine
            for one in mine:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """Listen on `port`. Set `target` before anybody connects."""
    passing = Proxy(port)
    server = await asyncio.start_server(passing.serve, HOST, port)
    try:
        yield passing
    finally:
        server.close()
        passing.cut()
        await asyncio.sleep(0.05)  # the handlers of what was cut end in the next turns of the loop

"""A receiver of webhooks that only answers 204. `python -m tests.bench.hooks <file for its port>`."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import cast

import uvloop

from pipeline.devkit.ports import HOST

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Hooks(asyncio.Protocol):
    """One connection: whole requests are answered, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._read = b""

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._read, 0, end + 2)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < whole:
                return
            self._read = self._read[whole:]
            self._transport.write(_ANSWER)


async def serve(file: Path) -> None:
    """Listen on a free port and tell which, until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Hooks, HOST, 0, backlog=1024)
    fresh = file.with_suffix(".new")
    fresh.write_text(str(server.sockets[0].getsockname()[1]), encoding="utf-8")
    fresh.replace(file)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(Path(sys.argv[1])))

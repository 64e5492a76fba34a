"""A proxy before a broker, which for a while says that it does not know who coordinates a group.

So does every broker whose cluster has just been started, until the partitions of `__consumer_offsets` have a leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipeline.devkit.ports import HOST

_FIND_COORDINATOR = 10
_COORDINATOR_NOT_AVAILABLE = 15
_GROUP = 0
# A request: its size, then API key, API version, correlation id. An answer: its size, then correlation id.
_HEADER = struct.Struct(">hhi")
_ID = struct.Struct(">i")
_ERROR = struct.Struct(">h")


@dataclass
class Forgetful:
    """Passes frames on, and puts itself where an answer names the broker, so that no client goes round it.

    The next `forgets` questions for a group's coordinator are answered by COORDINATOR_NOT_AVAILABLE.
    """

    target: int
    port: int = 0
    forgets: int = 0
    asked: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def servers(self) -> str:
        """What clients are told."""
        return f"{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            there, back = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        mine, forget = {writer, back}, set[int]()
        self._open |= mine
        try:
            await asyncio.gather(self._ask(reader, back, forget), self._answer(there, writer, forget))
        finally:
            self._open -= mine
            self.cut(mine)

    def cut(self, writers: set[asyncio.StreamWriter] | None = None) -> None:
        """End connections, by default all."""
        for writer in set(self._open if writers is None else writers):
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forget: set[int]) -> None:
        async for frame in _frames(reader):
            key, version, correlation = _HEADER.unpack_from(frame)
            # From version 1 to 3 the kind of coordinator is the request's last byte; librdkafka uses 2.
            if key == _FIND_COORDINATOR and version == 2 and frame[-1] == _GROUP:
                self.asked += 1
                if self.forgets:
                    self.forgets -= 1
                    forget.add(correlation)
            await _send(writer, frame)
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forget: set[int]) -> None:
        ours, its = (HOST.encode() + _ID.pack(port) for port in (self.port, self.target))
        async for frame in _frames(reader):
            (correlation,) = _ID.unpack_from(frame)
            answer = bytearray(frame.replace(its, ours))
            if correlation in forget:
                forget.remove(correlation)
                # Behind correlation id and throttle time.
                _ERROR.pack_into(answer, 8, _COORDINATOR_NOT_AVAILABLE)
            await _send(writer, bytes(answer))
        writer.transport.abort()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            (size,) = _ID.unpack(await reader.readexactly(_ID.size))
            yield await reader.readexactly(size)


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(_ID.pack(len(frame)) + frame)
        await writer.drain()


@asynccontextmanager
async def forgetful(servers: str) -> AsyncIterator[Forgetful]:
    """Listen on a free port before the broker at `servers`, on this machine."""
    passing = Forgetful(int(servers.rpartition(":")[2]))
    server = await asyncio.start_server(passing.serve, HOST, 0)
    passing.port = server.sockets[0].getsockname()[1]
    try:
        yield passing
    finally:
        server.close()
        passing.cut()
        await asyncio.sleep(0.05)  # the handlers of what was cut end in the next turns of the loop

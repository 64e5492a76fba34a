"""A PostgreSQL of its own for a test or a demo: made empty in a folder, thrown away with it, for logical replication.

    <folder>/data           the cluster; where its user cannot enter the folder, a link to a temporary one
             postgres.log   what initdb and the server say

What was committed outlives a crash of the server, but not one of the machine (fsync is off). It trusts whoever
connects, and listens on the loopback address only.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka_cache import Failed, run_tool, tail
from pipeline.devkit.ports import HOST, free_ports
from pipeline.devkit.postgres_programs import Owner, PostgresMissing, Programs, find_owner, find_programs

SUPERUSER = "postgres"

_INIT_SECONDS = 120.0
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.03
_TRIES = 4

# After SIGTERM a server waits for its clients; ours are gone or going, and nothing in it needs a tidy end.
_GRACE_SECONDS = 2.0

# Whatever a server writes at the end of its last owner's life.
_NOT_YET = ("pre-existing shared memory block", "lock file")
_PORT_TAKEN = "could not bind"

_SETTINGS = """
listen_addresses = '{host}'
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 8
max_wal_senders = 8
fsync = off
full_page_writes = off
shared_buffers = 32MB
timezone = 'UTC'
log_timezone = 'UTC'
"""


def _silent(_: str) -> None:
    """Report progress to nobody."""


class PostgresFailed(ConfigurationError):
    """The server did not start, or did not answer. The text says what it said, and where its log is."""


@dataclass(frozen=True)
class PostgresConfig:
    """Where the cluster lives, who hears what takes long, and where programs are looked for (None: PATH)."""

    folder: Path
    progress: Callable[[str], None] = _silent
    search_path: str | None = None


class Postgres:
    """A running server, as long as the block of `postgres` lasts; on the same port and data after a restart."""

    def __init__(self, programs: Programs, owner: Owner | None, data: Path, log: Path) -> None:
        self.port = 0
        self._programs, self._owner, self._data, self._log = programs, owner, data, log
        self.process = GuardedProcess(self._command())

    @property
    def host(self) -> str:
        """The loopback address."""
        return HOST

    @property
    def version(self) -> int:
        """The server's major version."""
        return self._programs.version

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        return self.process.pid

    def address(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """The address of a database, for clients. No password is asked for."""
        return f"postgresql://{user}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Start on a free port, and wait until the server answers. Raises `PostgresFailed`."""
        for _ in range(_TRIES):
            self.port = free_ports(1)[0]
            if await self._answers():
                return
        raise self._error("PostgreSQL found no port to listen on")

    async def stop(self) -> None:
        """End it, and with it every connection. What was committed is on the disk."""
        await self._end(signal.SIGINT)

    async def crash(self) -> None:
        """End it at once, as a power cut would (`pg_ctl -m immediate`): the next start recovers from its log."""
        await self._end(signal.SIGQUIT)

    async def restart(self) -> None:
        """Start it again, whether it still runs, was stopped, crashed or killed."""
        await self.stop()
        if not await self._answers():
            raise self._error(f"PostgreSQL cannot have its port {self.port} again")

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return await self.process.wait()

    async def terminate(self, grace: float | None = None) -> int:
        """End it, by force after `grace` seconds."""
        await self._end(signal.SIGINT, _STOP_SECONDS if grace is None else grace)
        return self.process.returncode or 0

    async def _end(self, how: signal.Signals, seconds: float = _STOP_SECONDS) -> None:
        if not self.process.running:
            return
        os.kill(self.pid, how)
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            await self.process.kill()

    async def _answers(self) -> bool:
        """Start it, and wait for its answer; False if somebody else has the port."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._started():
                    if _PORT_TAKEN in tail(self._log, lines=10):
                        return False
                    if not any(word in tail(self._log, lines=10) for word in _NOT_YET):
                        raise self._error(f"PostgreSQL ended at its start (exit code {self.process.returncode})")
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                return True
        except TimeoutError:
            await self.process.kill()
            raise self._error(f"PostgreSQL did not answer within {_READY_SECONDS:.0f} s") from None

    async def _started(self) -> bool:
        """Start it once; whether it answers, or has ended before it did."""
        self.process.command = self._command()
        await self.process.start()
        while self.process.running:
            try:
                connection = await asyncpg.connect(self.address(), timeout=_READY_SECONDS)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            else:
                await connection.close()
                return True
        return False

    def _command(self) -> Command:
        arguments = (self._programs["postgres"], "-D", str(self._data), "-p", str(self.port))
        return _as_owner(self._owner, arguments, self._data.parent, self._log)

    def _error(self, what: str) -> PostgresFailed:
        return PostgresFailed(f"{what}; its log, {self._log}, ends with:\n{tail(self._log, lines=10)}")


@asynccontextmanager
async def postgres(config: PostgresConfig) -> AsyncIterator[Postgres]:
    """An empty server that answers. It ends with the block, and also when we are killed.

    Raises `PostgresMissing` where the machine has none, `PostgresFailed` where it does not start.
    """
    programs = await asyncio.to_thread(find_programs, config.search_path)
    owner = find_owner()
    config.progress(f"starting PostgreSQL {programs.version}")
    folder = config.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data, log = _place(folder, owner), folder / "postgres.log"
    log.unlink(missing_ok=True)
    try:
        await _make(programs, owner, data, log)
        server = Postgres(programs, owner, data, log)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
    finally:
        if (folder / "data").is_symlink():
            _clear(folder / "data")


def _place(folder: Path, owner: Owner | None) -> Path:
    """An empty folder for the cluster, which its owner can reach; what an earlier run has left is removed."""
    data = folder / "data"
    _clear(data)
    if owner is None or owner.may_enter(folder):
        data.mkdir(mode=0o700)
        place = data
    else:
        above = Path(tempfile.mkdtemp(prefix="llm-event-pipeline-postgres-"))
        above.chmod(0o711)
        place = above / "data"
        place.mkdir(mode=0o700)
        data.symlink_to(place)
        if not owner.may_enter(above):
            _clear(data)
            raise PostgresMissing(
                f"PostgreSQL runs as {owner.name}, who can enter neither {folder} nor {above.parent}: set TMPDIR to a"
                " folder that everybody may enter, or start this program as a user other than root."
            )
    if owner is not None:
        os.chown(place, owner.uid, owner.gid)
    return place


def _clear(data: Path) -> None:
    if data.is_symlink():
        shutil.rmtree(data.readlink().parent, ignore_errors=True)
        data.unlink()
    elif data.exists():
        shutil.rmtree(data)


async def _make(programs: Programs, owner: Owner | None, data: Path, log: Path) -> None:
    options = ("-U", SUPERUSER, "--auth=trust", "--no-locale", "-E", "UTF8", "-N")
    arguments = (programs["initdb"], "-D", str(data), *options)
    try:
        await run_tool(_as_owner(owner, arguments, data.parent, log), _INIT_SECONDS)
    except Failed as failure:
        raise PostgresFailed(f"PostgreSQL could not make its folder {data} ({failure}).") from None
    with (data / "postgresql.conf").open("a", encoding="ascii") as settings:
        settings.write(_SETTINGS.format(host=HOST))


def _as_owner(owner: Owner | None, arguments: tuple[str, ...], folder: Path, log: Path) -> Command:
    command = arguments if owner is None else owner.running(*arguments)
    return Command(command, os.environ | {"LC_ALL": "C"}, folder, log, _GRACE_SECONDS)

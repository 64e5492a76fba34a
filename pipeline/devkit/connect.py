"""Kafka Connect with Debezium's connector for PostgreSQL, on the local Java, from the published jars.

A connector is ready when it streams: Connect's own RUNNING comes seconds before Debezium has read its first row, or
has failed to. So the worker's log is asked, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.devkit.connect_jars import CONNECT, fetch_connect
from pipeline.devkit.connect_rest import ConnectFailed, ConnectRest, NotNow, Status
from pipeline.devkit.connect_worker import ConnectWorker, Mode, WorkerPlan
from pipeline.devkit.kafka_jars import Jars
from pipeline.devkit.kafka_java import find_java
from pipeline.devkit.properties import read_properties

STREAMING_SECONDS = 90.0

_LOOK_AGAIN_SECONDS = 0.1
_STREAMS = "Starting streaming"
# A failure that a restart cures is soon over; one that it does not should not fill the log.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


def _silent(_: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class ConnectConfig:
    """Where a worker comes from and where it keeps its things.

    `settings` is the folder deploy/connect, `cache` keeps the jars, `data` is a folder for the worker alone: in
    standalone mode it goes on from the offsets that it finds there, of which a kill may have left nothing.
    `environment` has the variables that connectors read as `${env:NAME}`; `changes` go over the worker's properties.
    `java_home` is the value of JAVA_HOME, `search_path` where programs are looked for (None: PATH).
    """

    settings: Path
    cache: Path
    data: Path
    bootstrap_servers: str
    environment: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = "standalone"
    changes: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[str], None] = _silent
    java_home: Path | None = None
    search_path: str | None = None


@dataclass(frozen=True)
class Source:
    """The database that documents.properties reads. `placeholder` stands for a large value that did not change."""

    host: str
    port: int
    database: str
    placeholder: str
    user: str = "cdc"
    password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the connector finds it."""
        return {
            "CDC_DATABASE_HOST": self.host,
            "CDC_DATABASE_PORT": str(self.port),
            "CDC_DATABASE_USER": self.user,
            "CDC_DATABASE_PASSWORD": self.password,
            "CDC_DATABASE_NAME": self.database,
            "CDC_UNAVAILABLE_VALUE": self.placeholder,
        }


class Connect:
    """A running worker and its connectors, as long as the block of `kafka_connect` lasts."""

    def __init__(self, worker: ConnectWorker, rest: ConnectRest, progress: Callable[[str], None]) -> None:
        self._worker, self._rest, self._progress = worker, rest, progress
        self._wanted: dict[str, dict[str, str]] = {}
        self._since: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Where the worker's REST interface is."""
        return self._worker.url

    @property
    def log(self) -> Path:
        """What the worker says in its present start."""
        return self._worker.plan.log

    @property
    def pid(self) -> int:
        """The process id of the worker. Another one after a restart."""
        return self._worker.process.pid

    async def run(self, name: str, configuration: Mapping[str, str]) -> None:
        """Create a connector or change it, and wait until it streams. Raises `ConnectFailed`, which says why not."""
        await self.configure(name, configuration)
        await self.until_streaming(name)

    async def configure(self, name: str, configuration: Mapping[str, str]) -> None:
        """Create a connector or change it. Raises `ConnectFailed` where the worker finds the configuration wrong."""
        wanted = dict(configuration)
        self._wanted[name] = wanted
        until = asyncio.get_running_loop().time() + STREAMING_SECONDS
        while True:
            try:
                if await self._rest.configuration(name) != wanted:
                    self._since[name] = self._log_size()
                    await self._rest.configure(name, wanted)
                return
            except NotNow as error:
                if asyncio.get_running_loop().time() > until:
                    raise self._worker.error(f"Kafka Connect does not take the connector {name} ({error})") from None
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def until_streaming(self, name: str, seconds: float = STREAMING_SECONDS) -> None:
        """Wait until a connector has taken its snapshot, where it takes one, and follows the source's log."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.streaming(name):  # noqa: ASYNC110  # the event is in another process
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        except TimeoutError:
            raise self._worker.error(f"The connector {name} does not stream after {seconds:.0f} s") from None

    async def streaming(self, name: str) -> bool:
        """Whether a connector streams. Raises `ConnectFailed` where it never will by itself."""
        status = await self.status(name)
        if status.failed:
            raise ConnectFailed(f"The connector {name} has failed: {status.reason}; the worker's log is {self.log}")
        if not self._worker.process.running:
            code = self._worker.process.returncode
            raise self._worker.error(f"Kafka Connect has ended (exit code {code})")
        return status.running and await asyncio.to_thread(self._said, name, _STREAMS)

    async def status(self, name: str) -> Status:
        """How a connector does, by the worker; UNKNOWN where the worker does not say."""
        try:
            return await self._rest.status(name) or Status("UNKNOWN")
        except NotNow:
            return Status("UNKNOWN")

    async def restart_failed(self, name: str) -> None:
        """Start again what has failed of a connector, once its cause is mended."""
        self._since[name] = self._log_size()
        await self._rest.restart(name)

    async def tend(self, name: str, say: Callable[[str], None]) -> None:
        """Start what has failed of a connector again, less and less often while that does not help; until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            status = await self.status(name)
            if status.failed:
                say(f"the connector {name} has failed ({status.reason}): starting it again")
                await self.restart_failed(name)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            elif status.running:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)

    async def delete(self, name: str) -> None:
        """Delete a connector. Its slot in the source stays, and keeps the source's log until it is dropped."""
        self._wanted.pop(name, None)
        await self._rest.delete(name)

    async def kill(self) -> int:
        """SIGKILL for the worker, in the middle of whatever it does; a standalone one may lose its offsets by that."""
        return await self._worker.process.kill()

    async def wait(self) -> int:
        """Wait for the worker's end; returns the exit code."""
        return await self._worker.process.wait()

    async def terminate(self, grace: float | None = None) -> int:
        """End the worker; its connectors write down how far they are."""
        return await self._worker.process.terminate(grace)

    async def restart(self) -> None:
        """Start the worker again, though it may have been killed; its connectors go on from their offsets."""
        await self._worker.start_again()
        self._since.clear()
        for name, configuration in self._wanted.items():
            await self.configure(name, configuration)

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _said(self, name: str, words: str) -> bool:
        """Whether the log has the words in a line of this connector, since the connector's last start."""
        with self.log.open("rb") as file:
            file.seek(self._since.get(name, 0))
            mark = f"[{name}|"
            return any(mark in line and words in line for line in file.read().decode(errors="replace").splitlines())


@asynccontextmanager
async def kafka_connect(config: ConnectConfig) -> AsyncIterator[Connect]:
    """A worker that answers. It ends with the block, and also when we are killed.

    Raises `Missing` where the machine lacks Java or the jars cannot be had, `ConnectFailed` where the worker does not
    start; both for people.
    """
    java = await asyncio.to_thread(find_java, config.java_home, config.search_path)
    jars = Jars(config.settings / "pom.xml", config.cache, config.progress, config.search_path, CONNECT)
    installation = await fetch_connect(jars, java)
    config.progress(f"starting Kafka Connect with Debezium {jars.version}")
    plan = WorkerPlan(
        java=java,
        installation=installation,
        settings=config.settings,
        folder=config.data.absolute(),
        bootstrap_servers=config.bootstrap_servers,
        mode=config.mode,
        changes=config.changes,
        environment=config.environment,
    )
    async with AsyncExitStack() as stack:
        worker = ConnectWorker(plan)
        await worker.start()
        stack.push_async_callback(worker.process.terminate)
        rest = await stack.enter_async_context(ConnectRest(worker.url))
        yield Connect(worker, rest, config.progress)


def connector_configuration(settings: Path, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The project's connector as a worker wants it: documents.properties of the folder deploy/connect, with changes."""
    return read_properties(settings / "documents.properties") | dict(changes or {})

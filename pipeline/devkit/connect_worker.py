"""One Kafka Connect worker as a child process: started, watched until it answers, restarted in place, stopped.

<folder>/worker.properties   the project's, and what differs from start to start
<folder>/plugins             a link to the plugin folder
<folder>/connect.log         what the worker says; connect.log.1 is the start before
<folder>/connect.offsets     how far a standalone worker's connectors are
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.devkit.connect_jars import Installation
from pipeline.devkit.connect_rest import ConnectFailed, ConnectRest, NotNow
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka_cache import tail
from pipeline.devkit.kafka_java import Java, java_environment
from pipeline.devkit.ports import HOST, free_ports

Mode = Literal["standalone", "distributed"]

_MAIN: Mapping[Mode, str] = {
    "standalone": "org.apache.kafka.connect.cli.ConnectStandalone",
    "distributed": "org.apache.kafka.connect.cli.ConnectDistributed",
}
_MEMORY = ("-Xms64m", "-Xmx256m", "-XX:+ExitOnOutOfMemoryError")

_READY_SECONDS = 90.0
_GRACE_SECONDS = 10.0
_TRIES = 4
_LOOK_AGAIN_SECONDS = 0.1
_PORT_TAKEN = "Address already in use"


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is started from.

    `settings` is the folder of standalone.properties, distributed.properties and log4j2.properties; `changes` go over
    the worker's properties; `environment` has the variables that connectors read as `${env:NAME}`.
    """

    java: Java
    installation: Installation
    settings: Path
    folder: Path
    bootstrap_servers: str
    mode: Mode = "standalone"
    changes: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What the worker says in its present start."""
        return self.folder / "connect.log"

    def prepare(self, port: int) -> None:
        """Write what the next start reads, and begin a new log."""
        template = (self.settings / f"{self.mode}.properties").read_text(encoding="utf-8")
        places = {
            "bootstrap.servers": self.bootstrap_servers,
            "plugin.path": "plugins",
            "listeners": f"http://{HOST}:{port}",
        }
        lines = "".join(f"{name}={text}\n" for name, text in {**places, **self.changes}.items())
        (self.folder / "worker.properties").write_text(f"{template}\n{lines}", encoding="utf-8")
        link = self.folder / "plugins"
        link.unlink(missing_ok=True)
        # A path with a comma, or a letter beyond Latin-1, would have to be spelt in ways that Kafka does not know.
        link.symlink_to(self.installation.plugins)
        if self.log.exists():
            self.log.replace(self.folder / "connect.log.1")

    def command(self) -> Command:
        """The worker's command line."""
        logging = (self.settings.absolute() / "log4j2.properties").as_uri()
        flags = (*_MEMORY, f"-Dlog4j2.configurationFile={logging}")
        arguments = (*self.java.arguments(self.installation.jars, _MAIN[self.mode], *flags), "worker.properties")
        environment = java_environment() | dict(self.environment)
        return Command(arguments, environment, self.folder, self.log, _GRACE_SECONDS)


class ConnectWorker:
    """A worker of its own, on the loopback address."""

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan = plan
        self.process = GuardedProcess(plan.command())
        self._port = 0

    @property
    def url(self) -> str:
        """Where its REST interface is."""
        return f"http://{HOST}:{self._port}"

    async def start(self) -> None:
        """Start on a free port, and wait until the worker answers. Raises `ConnectFailed` with the end of its log."""
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        for tries_left in reversed(range(_TRIES)):
            self._port = free_ports(1)[0]
            try:
                await self.start_again()
                return
            except ConnectFailed:
                if not tries_left or _PORT_TAKEN not in tail(self.plan.log, lines=100):
                    raise

    async def start_again(self) -> None:
        """Start on the same port, whether it still runs, was stopped or killed."""
        if self.process.running:
            await self.process.terminate()
        self.plan.prepare(self._port)
        late = f"Kafka Connect did not answer within {_READY_SECONDS:.0f} s"
        await self.process.start_until(self._until_ready, _READY_SECONDS, lambda: self.error(late))

    def error(self, what: str) -> ConnectFailed:
        """An error for people that shows the end of the log."""
        return ConnectFailed(f"{what}; its log, {self.plan.log}, ends with:\n{tail(self.plan.log, lines=15)}")

    async def _until_ready(self) -> None:
        async with ConnectRest(self.url) as rest:
            while True:
                if not self.process.running:
                    raise self.error(f"Kafka Connect ended at its start (exit code {self.process.returncode})")
                try:
                    await rest.connectors()
                    return
                except NotNow:
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)

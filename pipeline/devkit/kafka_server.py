"""One real Kafka broker as a child process: started, watched until it answers, restarted in place, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka_archive import Archive
from pipeline.devkit.kafka_cache import tail
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, PortTaken
from pipeline.devkit.kafka_java import Java, java_environment
from pipeline.devkit.kafka_storage import Ports, Storage
from pipeline.devkit.ports import HOST, free_ports, port_in_use

_READY_SECONDS = 60.0
_TRIES = 4
_MEMORY = ("-Xms256m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError")


@dataclass(frozen=True)
class ServerPlan:
    """What a broker is started from.

    `settings` is the folder of server.properties and log4j2.properties; `lock` a descriptor that the broker inherits;
    `port` None for a free one. `cluster_at` asks a broker for its cluster's id: None if it does not answer within a
    fraction of a second. `archive` is that of its classes, there or not; `flags` are more flags for Java; `grace` is
    the time in seconds that the broker has for its end.
    """

    java: Java
    jars: Path
    settings: Path
    storage: Storage
    cluster_at: Callable[[str], str | None]
    port: int | None = None
    lock: tuple[int, ...] = ()
    archive: Archive | None = None
    flags: tuple[str, ...] = ()
    grace: float = 10.0


class KafkaServer:
    """A broker of its own, on the loopback address."""

    def __init__(self, plan: ServerPlan) -> None:
        self._plan = plan
        self._ports = Ports(0, 0)
        self.process = GuardedProcess(_command(plan, ()))

    @property
    def bootstrap_servers(self) -> str:
        """Where clients reach it."""
        return f"{HOST}:{self._ports.broker}"

    async def start(self) -> None:
        """Start on the plan's port or on a free one, and wait until the broker answers.

        Raises `PortTaken`, or `EmbeddedKafkaError` with the end of the broker's log.
        """
        for tries_left in reversed(range(_TRIES if self._plan.port is None else 1)):
            self._ports = self._choose_ports()
            self._plan.storage.configure(self._plan.settings / "server.properties", self._ports)
            try:
                await self._start_here()
                break
            except PortTaken:
                # Somebody was quicker than we at a port that was free a moment ago.
                if not tries_left:
                    raise

    async def restart(self) -> None:
        """Start again on the same ports and data, whether it still runs, was stopped or killed."""
        await self.process.terminate()
        await self._start_here()

    def _choose_ports(self) -> Ports:
        fixed = self._plan.port
        if fixed is None:
            return Ports(*free_ports(2))
        if port_in_use(fixed):
            raise _taken(fixed)
        return Ports(fixed, next(port for port in free_ports(2) if port != fixed))

    async def _start_here(self) -> None:
        archive = self._plan.archive
        flags = archive.flags() if archive else ()
        try:
            await self._start_with(flags)
        except PortTaken:
            raise
        except EmbeddedKafkaError:
            if not (archive and flags):
                raise
            # Java should have refused an archive that does it harm; if it is not to blame, the next error says what is.
            archive.give_up()
            await self._start_with(())

    async def _start_with(self, flags: tuple[str, ...]) -> None:
        self._plan.storage.turn_log()
        self.process.command = _command(self._plan, flags)
        late = f"Kafka did not answer within {_READY_SECONDS:.0f} s"
        await self.process.start_until(self._until_ready, _READY_SECONDS, lambda: self._error(late))

    async def _until_ready(self) -> None:
        wanted = self._plan.storage.cluster_id
        while await asyncio.to_thread(self._plan.cluster_at, self.bootstrap_servers) != wanted:
            if not self.process.running:
                raise self._death()

    def _death(self) -> EmbeddedKafkaError:
        if "Address already in use" in tail(self._plan.storage.log, lines=100):
            return _taken(self._ports.broker)
        return self._error(f"Kafka ended while it was starting (exit code {self.process.returncode})")

    def _error(self, what: str) -> EmbeddedKafkaError:
        log = self._plan.storage.log
        return EmbeddedKafkaError(f"{what}; its log, {log}, ends with:\n{tail(log, lines=15)}")


def _taken(port: int) -> PortTaken:
    return PortTaken(
        f"The embedded Kafka cannot listen on {HOST}:{port}, as the port is in use:"
        " stop what listens there, or choose another port."
    )


def _command(plan: ServerPlan, flags: tuple[str, ...]) -> Command:
    logging = (plan.settings.absolute() / "log4j2.properties").as_uri()
    own = (*_MEMORY, *plan.flags, *flags, f"-Dlog4j2.configurationFile={logging}")
    arguments = (*plan.java.arguments(plan.jars, "kafka.Kafka", *own), "server.properties")
    storage = plan.storage
    return Command(arguments, java_environment(), storage.folder, storage.log, plan.grace, plan.lock)

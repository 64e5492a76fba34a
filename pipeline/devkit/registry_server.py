"""A schema registry for one developer: Apicurio Registry on the local Java, asked by its Confluent-compatible API.

Its compatibility level is NONE until somebody sets one, which `pipeline schemas register` does for our subjects.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka_cache import Busy, locked, tail
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, PortTaken
from pipeline.devkit.kafka_jars import UNPACK, Jars, Product
from pipeline.devkit.kafka_java import QUICK_START, Java, find_java, java_environment
from pipeline.devkit.ports import HOST, free_ports, port_in_use

API = "/apis/ccompat/v7"

REGISTRY = Product(
    "Apicurio Registry", "registry", "registry.version", "apicurio-registry-app-*-runner.jar", goal=UNPACK
)

_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_ANSWER_SECONDS = 5.0
_TRIES = 4
_GRACE_SECONDS = 10.0
# Measured: 175 MB in all, heap and the rest.
_MEMORY = ("-Xms64m", "-Xmx384m", "-XX:MaxMetaspaceSize=192m", "-XX:+ExitOnOutOfMemoryError")


class EmbeddedRegistryError(EmbeddedKafkaError):
    """The embedded registry cannot be had. One of the broker's errors: who starts embedded parts looks for those."""


def _silent(_: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class RegistryServerConfig:
    """Where an embedded registry comes from and where it keeps its things.

    `cache` keeps the program that `pom` names. `data` is a folder for this registry alone: its log, and with `durable`
    its schemas; without, it forgets them when its process ends. `progress` is told what takes long. `port` None takes a
    free one. `java_home` is the value of JAVA_HOME, `search_path` where programs are looked for (None: PATH). `busy` is
    how long to wait for another one to leave the folder, in seconds.
    """

    pom: Path
    cache: Path
    data: Path
    progress: Callable[[str], None] = _silent
    port: int | None = None
    durable: bool = False
    java_home: Path | None = None
    search_path: str | None = None
    busy: float = 15.0


@dataclass(frozen=True)
class RegistryPlan:
    """What a registry is started from: `lock` are descriptors that it inherits, `ready` is its longest start in s."""

    java: Java
    jar: Path
    data: Path
    port: int | None = None
    durable: bool = False
    lock: tuple[int, ...] = ()
    ready: float = _READY_SECONDS


@asynccontextmanager
async def embedded_registry(config: RegistryServerConfig) -> AsyncIterator[RegistryServer]:
    """A registry that answers. It ends with the block, and also when we are killed.

    Raises `Missing` or `PortTaken` or EmbeddedRegistryError, whose texts are for people.
    """
    java = await asyncio.to_thread(find_java, config.java_home, config.search_path)
    folder = await Jars(config.pom, config.cache, config.progress, config.search_path, REGISTRY).fetch(java)
    jar = next(folder.glob(REGISTRY.proof))
    data = config.data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    try:
        before = "waiting for the registry before to end"
        async with locked(data / "lock", lambda: config.progress(before), config.busy) as lock:
            server = RegistryServer(RegistryPlan(java, jar, data, config.port, config.durable, (lock,)))
            config.progress("starting the schema registry")
            await server.start()
            try:
                yield server
            finally:
                await server.process.terminate()
    except Busy:
        raise EmbeddedRegistryError(
            f"Another embedded registry uses the folder {data}: stop it, or choose another folder."
        ) from None


class RegistryServer:
    """A schema registry of its own, on the loopback address."""

    def __init__(self, plan: RegistryPlan) -> None:
        self._plan = plan
        self._port = 0
        # Its answers carry this name, so that another registry at the same port is not taken for ours.
        self._name = uuid4().hex
        self.process = GuardedProcess(self._command())

    @property
    def url(self) -> str:
        """What SCHEMA_REGISTRY_URL is to be."""
        return f"http://{HOST}:{self._port}{API}"

    @property
    def native_url(self) -> str:
        """The address of Apicurio's own API, which Connect's converter and export and import ask."""
        return f"http://{HOST}:{self._port}/apis/registry"

    @property
    def log(self) -> Path:
        """What it has written since it was started."""
        return self._plan.data / "registry.log"

    async def start(self) -> None:
        """Start on the plan's port or on a free one, and wait until it answers.

        Raises `PortTaken`, or EmbeddedRegistryError with the end of its log.
        """
        for tries_left in reversed(range(_TRIES if self._plan.port is None else 1)):
            self._port = self._choose_port()
            try:
                await self._start_here()
                break
            except PortTaken:
                # Somebody was quicker than we at a port that was free a moment ago.
                if not tries_left:
                    raise

    async def restart(self) -> None:
        """Start again at the same address, whether it still runs, was stopped or killed.

        One that is not durable has forgotten all schemas then, and gives ids anew.
        """
        await self.process.terminate()
        await self._start_here()

    def _choose_port(self) -> int:
        fixed = self._plan.port
        if fixed is None:
            return free_ports(1)[0]
        if port_in_use(fixed):
            raise _taken(fixed)
        return fixed

    async def _start_here(self) -> None:
        self.log.unlink(missing_ok=True)
        # A registry that was killed has left things there.
        shutil.rmtree(self._plan.data / "tmp", ignore_errors=True)
        (self._plan.data / "tmp").mkdir()
        self.process.command = self._command()
        late = f"The schema registry did not answer within {self._plan.ready:g} s"
        await self.process.start_until(self._until_ready, self._plan.ready, lambda: self._error(late))

    async def _until_ready(self) -> None:
        while not await asyncio.to_thread(_answers, self._port, self._name):
            if not self.process.running:
                raise self._death()
            await asyncio.sleep(_LOOK_SECONDS)

    def _death(self) -> EmbeddedRegistryError | PortTaken:
        if "in use by another process" in tail(self.log, lines=100):
            return _taken(self._port)
        return self._error(f"The schema registry ended while it was starting (exit code {self.process.returncode})")

    def _error(self, what: str) -> EmbeddedRegistryError:
        return EmbeddedRegistryError(f"{what}; its log, {self.log}, ends with:\n{tail(self.log, lines=15)}")

    def _command(self) -> Command:
        plan = self._plan
        properties: dict[str, object] = {
            "java.io.tmpdir": plan.data / "tmp",
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._port,
            "quarkus.http.access-log.enabled": "false",
            "apicurio.app.name": self._name,
        }
        if plan.durable:
            # Relative to the working folder: an absolute path with a semicolon would end there. H2 writes half a second
            # after it has answered unless told otherwise: a kill would take a schema whose id is in use.
            properties |= {
                "apicurio.storage.sql.kind": "h2",
                "apicurio.datasource.url": "jdbc:h2:file:./schemas;WRITE_DELAY=0",
            }
        flags = [f"-D{key}={value}" for key, value in properties.items()]
        arguments = (str(plan.java.program), *QUICK_START, *_MEMORY, *flags, "-jar", str(plan.jar))
        return Command(arguments, java_environment(), plan.data, self.log, _GRACE_SECONDS, plan.lock)


def _answers(port: int, name: str) -> bool:
    """Whether the registry of that name answers at the port, its Confluent-compatible API included."""
    try:
        return json.loads(_get(port, "/apis/registry/v3/system/info"))["name"] == name and bool(
            _get(port, f"{API}/subjects")
        )
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def _get(port: int, path: str) -> bytes:
    """The body of a good answer, and nothing for another one. No proxy is asked."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else b""
    finally:
        connection.close()


def _taken(port: int) -> PortTaken:
    return PortTaken(
        f"The embedded schema registry cannot listen on {HOST}:{port}, as the port is in use:"
        " stop what listens there, or choose another port."
    )

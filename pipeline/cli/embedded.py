"""`up`, `demo` and `cdc`: the pipeline with everything it needs on one machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence, Set
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import aiohttp

from pipeline import wiring
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Document
from pipeline.core.tables import PLACEHOLDER
from pipeline.devkit import samples
from pipeline.devkit.cdc_demo import CdcDemo, Step, fill
from pipeline.devkit.connect import ConnectConfig, Source, connector_configuration, kafka_connect
from pipeline.devkit.demo import Demo, Progress, Row, Summary
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import EmbeddedKafkaConfig
from pipeline.devkit.ports import free_ports
from pipeline.devkit.postgres import Postgres, PostgresConfig, postgres
from pipeline.devkit.runfolder import RunFolder
from pipeline.devkit.stack import Stack, StackConfig, embedded_stack
from pipeline.devkit.supervise import Process, supervised
from pipeline.resources import resource
from pipeline.settings import Configured, Environment

# Index and retrieve share a process: the embedded vector store has one owner.
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "preprocess": ("preprocess",),
    "retrieve": ("retrieve", "index"),
    "infer": ("infer",),
    "postprocess": ("postprocess",),
    "notify": ("notify",),
}

T = TypeVar("T")

Say = Callable[[str], None]

STARTING = "starting: broker, topics, stages"
CAPTURING = "starting: database and broker, Kafka Connect, its connector, stages"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """How to be up: with the stages or only what they need, with the sample documents or without."""

    stages: bool = True
    samples: bool = False


async def up(configured: Configured, options: UpOptions, progress: Progress, say: Say) -> int:
    """Run everything until cancelled. Returns 1 where a stage halted."""
    folder = RunFolder(configured.data)
    with folder.owned("up"):
        progress(STARTING, 0, 3)
        async with _stack(configured, configured.data / "kafka", say) as stack:
            progress(STARTING, 1, 3)
            inner = _inside(configured, stack)
            await _create_topics(inner, stack, say)
            progress(STARTING, 2, 3)
            folder.publish(stack.environment)
            async with AsyncExitStack() as running:
                work = await running.enter_async_context(_stages(inner, say)) if options.stages else None
                progress(STARTING, 3, 3)
                if options.samples:
                    await _load_samples(inner, say)
                say(f"up: Kafka ({stack.broker.kind}) on {stack.broker.bootstrap_servers}; Ctrl-C ends it")
                await (work or asyncio.get_running_loop().create_future())
                return work.result() if work else 0


async def demo(
    configured: Configured, *, processes: bool, progress: Progress, say: Say
) -> tuple[Sequence[Row], Summary]:
    """Run the samples through a fresh pipeline; returns what became of each request, and the sum."""
    folder = RunFolder(configured.data)
    with folder.owned("demo"):
        data = configured.data / "demo"
        shutil.rmtree(data, ignore_errors=True)
        configured = _own_receiver(configured)
        progress(STARTING, 0, 3)
        async with _stack(configured, data / "kafka", say) as stack:
            progress(STARTING, 1, 3)
            inner = _inside(configured, stack, data)
            if stack.broker.kind == "external":
                inner = _apart(inner)
            await _create_topics(inner, stack, say)
            progress(STARTING, 2, 3)
            folder.publish(stack.environment)
            try:
                rows, summary = await _demo(inner, stack, processes=processes, progress=progress, say=say)
            finally:
                if stack.broker.kind == "external":
                    await _delete_topics(inner)
    summary.write(configured.data / "summary.json")
    return rows, summary


async def _demo(
    inner: Configured, stack: Stack, *, processes: bool, progress: Progress, say: Say
) -> tuple[Sequence[Row], Summary]:
    if stack.receiver is None:
        raise ConfigurationError("the demo needs its own receiver, but none was started")
    stages = _processes(inner, stack, say) if processes else _stages(inner, say)
    async with stages as work, wiring.open_desk(inner, say, "pipeline-demo") as desk:
        progress(STARTING, 3, 3)
        return await _beside(work, _play(Demo(desk, stack.receiver, stack.broker.kind, progress)))


async def _beside(work: asyncio.Future[Any], show: Coroutine[Any, Any, T]) -> T:
    """Await the show. Raises ConfigurationError where the stages end before it."""
    play = asyncio.create_task(show)
    try:
        await asyncio.wait({play, work}, return_when=asyncio.FIRST_COMPLETED)
        if not play.done():
            raise ConfigurationError("the stages stopped before the demo was over; the lines above say why")
        return play.result()
    finally:
        play.cancel()


async def _play(show: Demo) -> tuple[Sequence[Row], Summary]:
    await show.index()
    return await show.ask(samples.requests())


async def cdc(configured: Configured, *, progress: Progress, say: Say) -> Sequence[Step]:
    """Let a fresh pipeline's index follow a database of its own, which is edited; returns the answers meanwhile."""
    folder = RunFolder(configured.data)
    with folder.owned("cdc"):
        data = configured.data / "cdc"
        shutil.rmtree(data, ignore_errors=True)
        configured = _without(_own_receiver(configured), {"KAFKA_BOOTSTRAP_SERVERS"})
        progress(CAPTURING, 0, 4)
        async with (
            postgres(PostgresConfig(data / "postgres", say)) as source,
            _stack(configured, data / "kafka", say, real=True) as stack,
        ):
            inner = _inside(configured, stack, data)
            tables = {"tables": resource("deploy", "tables.yaml")}
            inner = replace(inner, settings=inner.settings.model_copy(update=tables))
            await _create_topics(inner, stack, say)
            progress(CAPTURING, 1, 4)
            async with _captured(inner, stack, source, progress, say):
                return await _cdc(inner, stack, source, progress, say)


@asynccontextmanager
async def _captured(
    inner: Configured, stack: Stack, source: Postgres, progress: Progress, say: Say
) -> AsyncIterator[None]:
    """Have the sample documents in the source, and its changes in Kafka."""
    settings, java_home = resource("deploy", "connect"), inner.environment.get("JAVA_HOME")
    config = ConnectConfig(
        settings=settings,
        cache=inner.cache,
        data=inner.data / "connect",
        bootstrap_servers=stack.broker.bootstrap_servers,
        environment=Source(source.host, source.port, "postgres", PLACEHOLDER).environment,
        progress=say,
        java_home=Path(java_home) if java_home else None,
    )
    rows = await fill(source, (settings / "source.sql").read_text(encoding="utf-8"))
    async with kafka_connect(config) as connect:
        progress(CAPTURING, 2, 4)
        await connect.run("documents", connector_configuration(settings))
        say(f"Debezium has read {rows} rows of the table documents, and follows the log of PostgreSQL {source.version}")
        progress(CAPTURING, 3, 4)
        tending = asyncio.create_task(connect.tend("documents", say))
        try:
            yield
        finally:
            tending.cancel()
            await asyncio.wait({tending})


async def _cdc(inner: Configured, stack: Stack, source: Postgres, progress: Progress, say: Say) -> Sequence[Step]:
    if stack.receiver is None:
        raise ConfigurationError("the demo needs its own receiver, but none was started")
    async with _stages(inner, say) as work, wiring.open_desk(inner, say, "pipeline-demo") as desk:
        progress(CAPTURING, 4, 4)
        return await _beside(work, CdcDemo(desk, stack.receiver, source).play())


@asynccontextmanager
async def _stack(configured: Configured, data: Path, say: Say, *, real: bool = False) -> AsyncIterator[Stack]:
    java_home = configured.environment.get("JAVA_HOME")
    kafka = EmbeddedKafkaConfig(
        pom_dir=resource("deploy", "kafka"),
        cache=configured.cache,
        data=data,
        progress=say,
        require_real=real or bool(os.environ.get("CI")),
        java_home=Path(java_home) if java_home else None,
    )
    endpoints = {
        name: (endpoint.url_env, endpoint.secret_env)
        for name, endpoint in wiring.catalog_of(configured).endpoints.items()
        if endpoint.url_env
    }
    async with embedded_stack(StackConfig(kafka, configured.environment.get, endpoints)) as stack:
        yield stack


def _inside(configured: Configured, stack: Stack, data: Path | None = None) -> Configured:
    """Configure what runs on the stack: its variables where none of the user's own is set."""
    settings = configured.settings.model_copy(
        update={
            "data": data or configured.settings.data,
            "allow_loopback_webhooks": configured.settings.allow_loopback_webhooks or stack.receiver is not None,
        }
    )
    return replace(
        configured, settings=settings, environment=Environment(configured.environment.environ, stack.environment)
    )


def _own_receiver(configured: Configured) -> Configured:
    """Take the user's own endpoints out of the demo: its webhooks go to its receiver, never to a real one.

    Nor does it read the user's tables: the connector writes to another broker than its own.
    """
    catalog = wiring.catalog_of(configured)
    fixed = sorted(name for name, endpoint in catalog.endpoints.items() if not endpoint.url_env)
    if fixed:
        raise ConfigurationError(
            f"the demo posts to its own receiver only, but the catalog gives {', '.join(fixed)} a fixed url: use "
            "url_env there, or unset PIPELINE_CATALOG for the demo"
        )
    hidden = {name for end in catalog.endpoints.values() for name in (end.url_env, end.secret_env) if name}
    settings = configured.settings.model_copy(update={"tables": None})
    return _without(replace(configured, settings=settings), hidden | {"PIPELINE_TABLES"})


def _without(configured: Configured, hidden: Set[str]) -> Configured:
    """Take variables, and the variables of files that hold their values, out of the environment."""
    every = hidden | {f"{name}_FILE" for name in hidden}
    environ = {name: text for name, text in configured.environment.environ.items() if name not in every}
    return replace(configured, environment=Environment(environ))


def _apart(configured: Configured) -> Configured:
    """Take topics of the demo's own on a broker that others use."""
    prefix = f"{configured.settings.topic_prefix}-demo-{token_hex(3)}"
    return replace(configured, settings=configured.settings.model_copy(update={"topic_prefix": prefix}))


async def _create_topics(configured: Configured, stack: Stack, say: Say) -> None:
    if stack.broker.kind == "test":
        await stack.broker.touch_topics(wiring.topic_names(configured))
        return
    async with wiring.opened_admin(configured, say) as admin:
        await wiring.create_topics(configured, admin)


async def _delete_topics(configured: Configured) -> None:
    async with wiring.opened_admin(configured, lambda _: None) as admin:
        await wiring.delete_topics(configured, admin)


async def _load_samples(configured: Configured, say: Say) -> None:
    async with wiring.open_desk(configured, say) as desk:
        for sample in samples.documents():
            await desk.document(Document(**sample.model_dump()))
    say(f"{len(samples.documents())} sample documents are on their way into the index")


@asynccontextmanager
async def _stages(configured: Configured, say: Say) -> AsyncIterator[asyncio.Task[int]]:
    """Run all stages in this process; yields the task of the worker."""
    async with wiring.open_worker(configured, list(wiring.STAGES), say) as opened:
        task = asyncio.create_task(opened.worker.run())
        try:
            yield task
        finally:
            opened.worker.stop()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()


@asynccontextmanager
async def _processes(configured: Configured, stack: Stack, say: Say) -> AsyncIterator[asyncio.Future[None]]:
    """Run each stage in its own process and keep them running; yields a future that fails if that cannot be done."""
    ports = dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True))
    logs = configured.data / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as started:
        processes: dict[str, Process] = {}
        ready = {name: _Ready(name, port, configured.settings.startup_seconds) for name, port in ports.items()}
        for name, stages in PROCESSES.items():
            environment = _environment(configured, stack, ports[name])
            arguments = (sys.executable, "-m", "pipeline", "run", *stages)
            command = Command(arguments, environment, output=logs / f"{name}.log", grace=20.0)
            processes[name] = await started.enter_async_context(GuardedProcess(command))
        checks = {name: check.wait for name, check in ready.items()}
        if stack.broker.server is not None:
            processes["kafka"] = _Kafka(stack)
            checks["kafka"] = _nothing
        await asyncio.gather(*(check.wait() for check in ready.values()))
        async with supervised(processes, checks, configured.data / "processes.json", say) as supervisor:
            yield supervisor.failed


def _environment(configured: Configured, stack: Stack, port: int) -> dict[str, str]:
    inherited = {name: text for name, text in configured.environment.environ.items() if name != "PIPELINE_CATALOG_FILE"}
    return (
        inherited
        | dict(stack.environment)
        | {
            "PIPELINE_DATA": str(configured.data),
            "PIPELINE_TOPIC_PREFIX": configured.settings.topic_prefix,
            "PIPELINE_PROBES_PORT": str(port),
        }
    )


async def _nothing() -> None:
    """Wait for nothing: a restart returns when the broker answers."""


@dataclass(frozen=True, slots=True)
class _Kafka:
    """The embedded broker, as the supervisor sees it."""

    stack: Stack

    @property
    def pid(self) -> int:
        return self.stack.broker.pid or 0

    async def wait(self) -> int:
        process = self.stack.broker.process
        return await process.wait() if process else 0

    async def restart(self) -> None:
        await self.stack.broker.restart()

    async def terminate(self, grace: float | None = None) -> int:
        process = self.stack.broker.process
        return await process.terminate(grace) if process else 0


@dataclass(frozen=True, slots=True)
class _Ready:
    """Waits until a stage's process says that it does its work."""

    name: str
    port: int
    seconds: float

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(self.seconds), aiohttp.ClientSession() as session:
                while not await self._asked(session):  # noqa: ASYNC110  # the event is in another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ConfigurationError(
                f"the process of {self.name} was not ready within {self.seconds:g} s (PIPELINE_STARTUP_SECONDS); "
                f"its log is {self.name}.log in the demo's logs folder"
            ) from None

    async def _asked(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

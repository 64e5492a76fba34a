"""A site: a simulator, a receiver and topics of its own on the shared broker, and stages as real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import aiohttp
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though its stubs do not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from pipeline import wiring
from pipeline.core import names
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import Broker
from pipeline.devkit.ports import free_ports
from pipeline.devkit.receiver import Receiver, ReceiverConfig, new_secret, receiver
from pipeline.devkit.simulator import Simulator, SimulatorClock, SimulatorConfig, simulator
from pipeline.settings import Configured, Environment, load
from pipeline.wiring import Desk
from tests.system.command import pipeline

SESSION_MS = 3_000
FORWARDED = ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME", "PYTHONPATH", "CI")


async def until(fact: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until `fact()` holds; fail naming `what` after `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    while not fact():
        assert asyncio.get_running_loop().time() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


TABLES = """
tables:
  {topic}:
    source: documents
    id: id
    tenant: {{column: tenant}}
    title: title
    body: body
    replica_identity: full
"""
"""How the table of our recorded and of our real changes becomes documents; `topic` is to be filled in."""


@dataclass
class Stage:
    """Stages that run in one process."""

    process: GuardedProcess
    port: int
    log: Path

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until `/readyz` says yes."""
        end = asyncio.get_running_loop().time() + seconds
        while await self.probe("/readyz") is None:
            assert self.process.running, self.log.read_text()
            assert asyncio.get_running_loop().time() < end, self.log.read_text()
            await asyncio.sleep(0.05)

    async def probe(self, path: str) -> str | None:
        """Ask a probe; None where the answer is not 200."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return await response.text() if response.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def metric(self, name: str, label: str = "") -> float:
        """Add up the samples of a metric, over all labels, or those with `label` (as it is spelt) alone."""
        lines = (await self.probe("/metrics") or "").splitlines()
        samples = [line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples)


@dataclass
class Site:
    """Everything around the stages of one test."""

    folder: Path
    environment: Mapping[str, str]
    simulator: Simulator
    receiver: Receiver
    configured: Configured
    stack: AsyncExitStack
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The prefix of the site's topics."""
        return self.configured.settings.topic_prefix

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[Desk]:
        """Open what writes to the topics and looks at them."""
        async with wiring.open_desk(self.configured, lambda _: None, "test") as desk:
            yield desk

    async def start(self, *stages: str, name: str = "", **variables: str) -> Stage:
        """Run stages in a process of their own, and wait until they are ready."""
        name = name or "+".join(stages)
        port = free_ports(1)[0]
        log = self.folder / f"{name}.log"
        environment = {**self.environment, "PIPELINE_PROBES_PORT": str(port), **variables}
        arguments = (sys.executable, "-m", "pipeline", "run", *stages)
        process = GuardedProcess(Command(arguments, environment, folder=self.folder, output=log))
        await self.stack.enter_async_context(process)
        self.stages[name] = started = Stage(process, port, log)
        await started.ready()
        return started

    async def miss_soon(self, *stages: str) -> None:
        """Let workers of these stages that are killed be missed after `SESSION_MS`, the least that the broker allows.

        To be called before the first of them starts.
        """
        entry = ConfigEntry("consumer.session.timeout.ms", str(SESSION_MS), incremental_operation=AlterConfigOpType.SET)
        groups = [names.group(self.prefix, stage) for stage in stages]
        resources = [ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry]) for group in groups]
        admin = AdminClient({"bootstrap.servers": self.environment["KAFKA_BOOTSTRAP_SERVERS"]})
        for future in admin.incremental_alter_configs(resources).values():
            await asyncio.wrap_future(future)

    async def command(self, *arguments: str) -> str:
        """Run `pipeline` to its end, which is to be a good one; returns what it prints."""
        variables = {name: text for name, text in self.environment.items() if name.isupper()}
        done = await asyncio.to_thread(pipeline, *arguments, folder=self.folder, **variables)
        assert done.returncode == 0, f"{arguments}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    async def idle(self, *stages: str, seconds: float = 60.0) -> None:
        """Wait until stages have nothing left to do."""
        async with self.desk() as desk:
            end = asyncio.get_running_loop().time() + seconds
            for stage in stages:
                while await desk.lag(stage):
                    assert asyncio.get_running_loop().time() < end, f"{stage} has still work after {seconds:g} s"
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def site(
    kafka: Broker,
    folder: Path,
    simulated: SimulatorConfig | None = None,
    clock: SimulatorClock | None = None,
    /,
    **variables: str,
) -> AsyncIterator[Site]:
    """Set up a site with topics that exist. `variables` are settings of the stages."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(simulator(simulated, clock))
        hooks = await stack.enter_async_context(receiver(ReceiverConfig(secret=(secret := new_secret()))))
        environment = {
            **{name: os.environ[name] for name in FORWARDED if name in os.environ},
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_API_KEY": "simulated",
            "WEBHOOK_URL": hooks.url,
            "WEBHOOK_SECRET": secret,
            "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS": "1",
            "PIPELINE_TOPIC_PREFIX": f"t{uuid4().hex[:8]}",
            "PIPELINE_DATA": str(folder / ".run"),
            "PIPELINE_PARTITIONS": "4",
            **variables,
        }
        configured = load(Environment(environment), wiring.STAGES)
        async with wiring.opened_admin(configured, lambda _: None) as admin:
            await wiring.create_topics(configured, admin)
        yield Site(folder, environment, model, hooks, configured, stack)

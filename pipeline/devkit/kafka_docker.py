"""Apache Kafka in a container, for a machine that has Docker but not what it takes to run the jars.

The package testcontainers (the extra `docker`) runs it, and its reaper removes the container also when we are killed.
The topics last as long as the container.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_storage import random_id
from pipeline.devkit.ports import HOST, free_ports

_READY_SECONDS = 60.0

# Inside the container.
_BROKER, _CONTROLLER = 9092, 9093


@dataclass(frozen=True)
class DockerPlan:
    """What a container is started from.

    `version` is Kafka's: it pins the image. `template` is the project's server.properties; `cluster_at` asks a broker
    for its cluster's id, for a fraction of a second; `port` None takes a free one; `search_path` is where `docker` is
    looked for (None: PATH).
    """

    version: str
    template: Path
    cluster_at: Callable[[str], str | None]
    progress: Callable[[str], None]
    port: int | None = None
    search_path: str | None = None

    @property
    def image(self) -> str:
        """The image that Kafka's own project publishes for this version."""
        return f"apache/kafka:{self.version}"


@asynccontextmanager
async def container_kafka(plan: DockerPlan) -> AsyncIterator[str]:
    """A broker in a container, as long as the block lasts; yields its address.

    Raises `Missing` where there is no Docker or no testcontainers, `EmbeddedKafkaError` where the broker never answers.
    """
    make = _testcontainers(plan.search_path)
    port, cluster_id = plan.port or free_ports(1)[0], random_id()
    plan.progress(f"starting {plan.image} with Docker, which fetches it the first time; its topics end with it")
    container = await asyncio.to_thread(_started, make, plan.image, environment(plan.template, port, cluster_id), port)
    try:
        await _until_ready(plan, container, f"{HOST}:{port}", cluster_id)
        yield f"{HOST}:{port}"
    finally:
        await asyncio.to_thread(container.stop)


def environment(template: Path, port: int, cluster_id: str) -> dict[str, str]:
    """The variables from which the image makes its server.properties: ours, and what differs from start to start."""
    lines = (line for line in template.read_text().splitlines() if line and not line.startswith("#"))
    properties = dict(line.split("=", 1) for line in lines) | {
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER}",
        "listeners": f"PLAINTEXT://:{_BROKER},CONTROLLER://:{_CONTROLLER}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
    }
    variables = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}
    return variables | {"CLUSTER_ID": cluster_id}


def _testcontainers(search_path: str | None) -> Callable[..., Any]:
    """Its class for containers. The package is optional and slow to import, so it is imported when it is needed."""
    if shutil.which("docker", path=search_path) is None:
        raise Missing("Nor is there Docker, to run Kafka in a container (no `docker` was found)")
    try:
        make: Callable[..., Any] = import_module("testcontainers.core.container").DockerContainer
    except ImportError:
        raise Missing("Docker could run Kafka in a container: for that, run `pip install testcontainers`") from None
    # It reports each step at level INFO, and a person is told by us.
    logging.getLogger("testcontainers").setLevel(logging.WARNING)
    return make


def _started(make: Callable[..., Any], image: str, variables: dict[str, str], port: int) -> Any:
    """A container that runs. Whatever Docker objects to, the machine cannot run one."""
    container = None
    try:
        container = make(image, env=variables)
        # For this machine only: its own method would listen on all addresses.
        container.ports[f"{_BROKER}/tcp"] = (HOST, port)
        return container.start()
    except Exception as error:
        if container is not None:
            container.stop()
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise Missing(f"Docker cannot run {image} ({reason}): start Docker, and connect to the network once") from error


async def _until_ready(plan: DockerPlan, container: Any, address: str, cluster_id: str) -> None:
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while await asyncio.to_thread(plan.cluster_at, address) != cluster_id:
                pass
    except TimeoutError:
        said = b"".join(await asyncio.to_thread(container.get_logs)).decode(errors="replace").splitlines()[-15:]
        raise EmbeddedKafkaError(
            f"Kafka did not answer at {address} within {_READY_SECONDS:.0f} s; the container said at last:\n"
            + "\n".join(said)
        ) from None

"""The broker's data folder: its properties, its storage, its log.

    <data>/server.properties       the project's, and what differs from start to start
           logs/                   the topics
           broker.log              what the broker and its Java machine say; broker.log.1 is the one before
           lock                    held by whoever uses the folder, and by the broker itself

Formatting a storage takes more than a second and gives two small files, which depend on Kafka's version and the node's
id only. So it is done once for each version and properties, kept in the cache folder, and copied. Each copy gets ids of
its own, so that clients, and we, can tell one broker from another that has its port later.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.devkit.guard import Command
from pipeline.devkit.kafka_cache import Failed, fingerprint, make_once, run_tool
from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.devkit.kafka_java import Java, java_environment
from pipeline.devkit.ports import HOST

_FORMAT_SECONDS = 120.0


@dataclass(frozen=True)
class Ports:
    """The two ports of a node: for clients, and for its controller."""

    broker: int
    controller: int


def server_properties(template: Path, ports: Ports) -> str:
    """The properties of a start. Paths in it are relative to the broker's working folder: a path with a comma, a space
    or a letter beyond Latin-1 would have to be spelt in ways that Kafka does not know."""
    listener = f"PLAINTEXT://{HOST}:{ports.broker}"
    return (
        f"{template.read_text()}\n"
        f"controller.quorum.voters=1@{HOST}:{ports.controller}\n"
        f"listeners={listener},CONTROLLER://{HOST}:{ports.controller}\n"
        f"advertised.listeners={listener}\n"
        "log.dirs=logs\n"
    )


async def formatted_storage(java: Java, jars: Path, template: Path, progress: Callable[[str], None]) -> Path:
    """A formatted storage, to be copied: made now with Kafka's own tool, or kept from before, beside the jars."""

    async def make(folder: Path) -> None:
        progress("formatting Kafka's storage (first time only)")
        (folder / "server.properties").write_text(server_properties(template, Ports(1, 2)))
        tool = java.arguments(jars, "kafka.tools.StorageTool")
        options = ("format", "-t", random_id(), "-c", "server.properties")
        log = jars.with_name("format.log")
        log.unlink(missing_ok=True)
        try:
            await run_tool(Command((*tool, *options), java_environment(), folder, log), _FORMAT_SECONDS)
        except Failed as failure:
            raise EmbeddedKafkaError(f"Kafka's storage could not be formatted ({failure}): check {template}") from None

    target = jars.with_name(f"formatted-{fingerprint(template)}")
    return await make_once(target, lambda: progress("waiting for another process that formats"), make) / "logs"


@dataclass(frozen=True)
class Storage:
    """The data folder of one broker."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the broker says in its present start."""
        return self.folder / "broker.log"

    @property
    def lock(self) -> Path:
        """The lock file of the folder."""
        return self.folder / "lock"

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    @property
    def cluster_id(self) -> str:
        """By which this storage is told from all others."""
        found = re.search(r"^cluster\.id=(.*)$", (self._logs / "meta.properties").read_text(), re.MULTILINE)
        if found is None:
            raise EmbeddedKafkaError(f"{self._logs} is no storage of Kafka 4: move the folder away")
        return found[1]

    def fill(self, formatted: Path) -> None:
        """Copy the formatted storage, unless there is one, with topics, from an earlier start."""
        if (self._logs / "meta.properties").is_file():
            return
        part = self.folder / "logs.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(formatted, part)
        meta = part / "meta.properties"
        meta.write_text(re.sub(r"^(cluster|directory)\.id=.*$", _with_random_id, meta.read_text(), flags=re.MULTILINE))
        part.rename(self._logs)

    def configure(self, template: Path, ports: Ports) -> None:
        """Write the properties of the next start."""
        (self.folder / "server.properties").write_text(server_properties(template, ports))

    def turn_log(self) -> None:
        """Begin a new log; keep the one before."""
        if self.log.exists():
            self.log.replace(self.folder / "broker.log.1")


def random_id() -> str:
    """A UUID as Kafka writes it: 16 bytes in base64url. A dash at its front would look like an option."""
    while (text := base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _with_random_id(line: re.Match[str]) -> str:
    return f"{line[1]}.id={random_id()}"

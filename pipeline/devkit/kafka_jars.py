"""Kafka's jars: fetched by Maven once for each version and pom, then kept in the cache folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.devkit.guard import Command
from pipeline.devkit.kafka_cache import Failed, fingerprint, make_once, run_tool
from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing
from pipeline.devkit.kafka_java import Java

COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0:copy-dependencies"

_DOWNLOAD_SECONDS = 900.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Jars:
    """What it takes to have Kafka's jars: the pom, the cache, and where programs are looked for (None: PATH)."""

    pom: Path
    cache: Path
    progress: Progress
    search_path: str | None = None

    @property
    def version(self) -> str:
        """Kafka's version, as the pom says it."""
        found = re.search(r"<kafka\.version>(.*?)</kafka\.version>", self.pom.read_text())
        if found is None:
            raise EmbeddedKafkaError(f"{self.pom} names no <kafka.version>: restore the file")
        return found[1]

    @property
    def folder(self) -> Path:
        """The part of the cache for this version and pom."""
        return self.cache.absolute() / "kafka" / f"{self.version}-{fingerprint(self.pom)}"

    async def fetch(self, java: Java) -> Path:
        """The folder of the jars. Maven and a network are needed only if it is not there yet.

        Raises `Missing` when the jars cannot be had.
        """

        async def download(folder: Path) -> None:
            self.progress(f"downloading Kafka {self.version} (first time only)")
            await self._download(java, folder)

        return await make_once(
            self.folder / "lib", lambda: self.progress("waiting for another process that downloads Kafka"), download
        )

    async def _download(self, java: Java, folder: Path) -> None:
        maven = shutil.which("mvn", path=self.search_path)
        if maven is None:
            raise Missing("Maven is missing, which fetches Kafka's jars once (no `mvn` was found): install Maven")
        arguments = (maven, "-q", "-B", "-f", str(self.pom.absolute()), COPY_DEPENDENCIES)
        options = (f"-DoutputDirectory={folder}", "-DincludeScope=runtime")
        log = self.folder / "maven.log"
        log.unlink(missing_ok=True)
        try:
            await run_tool(Command((*arguments, *options), _environment(java), folder, log), _DOWNLOAD_SECONDS)
        except Failed as failure:
            raise Missing(
                f"Kafka {self.version} could not be downloaded ({failure}): connect to the network and try again"
            ) from None
        if not _has_kafka(folder):
            raise EmbeddedKafkaError(f"Maven has fetched no Kafka: {self.pom} must depend on it")


def _has_kafka(folder: Path) -> bool:
    return any(folder.glob("kafka_*.jar"))


def _environment(java: Java) -> dict[str, str]:
    """Maven runs on the Java that the machine has for it, certificates included; else on the packaged one."""
    return os.environ | ({"JAVA_HOME": str(java.program.parent.parent)} if java.packaged else {})

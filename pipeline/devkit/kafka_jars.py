"""The jars of Kafka and of what runs beside it: fetched by Maven once for each version and pom, then kept."""

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

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0"
COPY_DEPENDENCIES = f"{_PLUGIN}:copy-dependencies"
UNPACK = f"{_PLUGIN}:unpack"

_DOWNLOAD_SECONDS = 900.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Product:
    """What a pom is for: its name for people, its part of the cache, the pom's property with its version, and a pattern
    of the file without which Maven has fetched something else. `goal` is what Maven is to do with the pom.
    """

    name: str
    folder: str
    version: str
    proof: str
    goal: str = COPY_DEPENDENCIES


KAFKA = Product("Kafka", "kafka", "kafka.version", "kafka_*.jar")


@dataclass(frozen=True)
class Jars:
    """What it takes to have a product's jars: the pom, the cache, and where programs are looked for (None: PATH)."""

    pom: Path
    cache: Path
    progress: Progress
    search_path: str | None = None
    product: Product = KAFKA

    @property
    def version(self) -> str:
        """The product's version, as the pom says it."""
        name = self.product.version
        found = re.search(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>", self.pom.read_text())
        if found is None:
            raise EmbeddedKafkaError(f"{self.pom} names no <{name}>: restore the file")
        return found[1]

    @property
    def folder(self) -> Path:
        """The part of the cache for this version and pom."""
        return self.cache.absolute() / self.product.folder / f"{self.version}-{fingerprint(self.pom)}"

    async def fetch(self, java: Java) -> Path:
        """The folder of the jars. Maven and a network are needed only if it is not there yet.

        Raises `Missing` when the jars cannot be had.
        """
        name = self.product.name

        async def download(folder: Path) -> None:
            self.progress(f"downloading {name} {self.version} (first time only)")
            await self._download(java, folder)

        return await make_once(
            self.folder / "lib", lambda: self.progress(f"waiting for another process that downloads {name}"), download
        )

    async def _download(self, java: Java, folder: Path) -> None:
        name, maven = self.product.name, shutil.which("mvn", path=self.search_path)
        if maven is None:
            raise Missing(f"Maven is missing, which fetches {name}'s jars once (no `mvn` was found): install Maven")
        arguments = (maven, "-q", "-B", "-f", str(self.pom.absolute()), self.product.goal)
        options = (f"-DoutputDirectory={folder}", f"-DmarkersDirectory={folder}/markers", "-DincludeScope=runtime")
        log = self.folder / "maven.log"
        log.unlink(missing_ok=True)
        try:
            await run_tool(Command((*arguments, *options), _environment(java), folder, log), _DOWNLOAD_SECONDS)
        except Failed as failure:
            raise Missing(
                f"{name} {self.version} could not be downloaded ({failure}): connect to the network and try again"
            ) from None
        if not _any(folder, self.product.proof):
            raise EmbeddedKafkaError(f"Maven has fetched no {name}: {self.pom} must name it")


def _any(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def _environment(java: Java) -> dict[str, str]:
    """Maven runs on the Java that the machine has for it, certificates included; else on the packaged one."""
    return os.environ | ({"JAVA_HOME": str(java.program.parent.parent)} if java.packaged else {})

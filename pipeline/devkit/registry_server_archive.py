"""Apicurio Registry's archive: fetched and unpacked by Maven once for each pom, then kept in the cache folder."""

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

UNPACK = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0:unpack"

_DOWNLOAD_SECONDS = 900.0

Progress = Callable[[str], None]


class EmbeddedRegistryError(EmbeddedKafkaError):
    """The embedded registry cannot be had. One of the broker's errors: who starts embedded parts looks for those."""


@dataclass(frozen=True)
class Archive:
    """What it takes to have the registry's program: the pom, the cache, where programs are looked for (None: PATH)."""

    pom: Path
    cache: Path
    progress: Progress
    search_path: str | None = None

    @property
    def version(self) -> str:
        """The registry's version, as the pom says it."""
        found = re.search(r"<registry\.version>(.*?)</registry\.version>", self.pom.read_text())
        if found is None:
            raise EmbeddedRegistryError(f"{self.pom} names no <registry.version>: restore the file")
        return found[1]

    @property
    def folder(self) -> Path:
        """The part of the cache for this version and pom."""
        return self.cache.absolute() / "registry" / f"{self.version}-{fingerprint(self.pom)}"

    async def fetch(self, java: Java) -> Path:
        """The jar that starts the registry. Maven and a network are needed only if it is not there yet.

        Raises `Missing` when it cannot be had.
        """

        async def download(folder: Path) -> None:
            self.progress(f"downloading Apicurio Registry {self.version}, 109 MB (first time only)")
            await self._download(java, folder)

        waiting = "waiting for another process that downloads Apicurio Registry"
        return runner(await make_once(self.folder / "app", lambda: self.progress(waiting), download), self.pom)

    async def _download(self, java: Java, folder: Path) -> None:
        maven = shutil.which("mvn", path=self.search_path)
        if maven is None:
            raise Missing("Maven is missing, which fetches the schema registry once (no `mvn` was found): install it")
        arguments = (maven, "-q", "-B", "-f", str(self.pom.absolute()), UNPACK)
        options = (f"-DoutputDirectory={folder}", f"-DmarkersDirectory={folder / 'markers'}")
        log = self.folder / "maven.log"
        log.unlink(missing_ok=True)
        # Maven runs on the Java that the machine has for it, certificates included; else on the packaged one.
        home = {"JAVA_HOME": str(java.program.parent.parent)} if java.packaged else {}
        try:
            await run_tool(Command((*arguments, *options), os.environ | home, folder, log), _DOWNLOAD_SECONDS)
        except Failed as failure:
            raise Missing(
                f"Apicurio Registry {self.version} could not be downloaded ({failure}): connect to the network and try"
                " again"
            ) from None
        runner(folder, self.pom)


def runner(folder: Path, pom: Path) -> Path:
    """The jar that starts the registry, in the folder of its archive. Raises EmbeddedRegistryError if it has none."""
    found = sorted(folder.glob("apicurio-registry-app-*-runner.jar"))
    if len(found) != 1:
        raise EmbeddedRegistryError(
            f"{folder} has no registry to start: {pom} must name its archive; delete the folder"
        )
    return found[0]

"""The jars of a Kafka Connect worker, and the plugin folder with Debezium's connector in it.

<cache>/connect/<version>-<pom>/lib       what Maven has fetched: the worker's jars, and the connector's archive
                                plugins   a folder for each connector, with the jars of its archive
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.devkit.kafka_cache import make_once
from pipeline.devkit.kafka_jars import Jars, Product
from pipeline.devkit.kafka_java import Java

_CONNECTOR = "debezium-connector-postgres"

CONNECT = Product("Kafka Connect with Debezium", "connect", "debezium.version", f"{_CONNECTOR}-*.tar.gz")


@dataclass(frozen=True)
class Installation:
    """What a worker runs from: the folder of its own jars, and the folder of its plugins."""

    jars: Path
    plugins: Path


async def fetch_connect(jars: Jars, java: Java) -> Installation:
    """Fetch and unpack what is not there yet. Raises `Missing` when it cannot be had."""
    lib = await jars.fetch(java)

    async def unpack(folder: Path) -> None:
        await asyncio.to_thread(_unpack, next(lib.glob(CONNECT.proof)), folder / _CONNECTOR)

    plugins = await make_once(
        jars.folder / "plugins", lambda: jars.progress("waiting for another process that unpacks Debezium"), unpack
    )
    return Installation(lib, plugins)


def _unpack(archive: Path, folder: Path) -> None:
    """The jars of an archive, by their names alone, whatever folders it names."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name.endswith(".jar") else None
            if content is not None:
                with (folder / PurePosixPath(member.name).name).open("wb") as file:
                    shutil.copyfileobj(content, file)

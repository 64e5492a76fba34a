"""Running the command as a person does: in a folder, with an environment, looking at what it prints and leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
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

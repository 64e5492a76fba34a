"""The wheel is complete: installed in a clean environment, it runs the demo from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.system.command import plain_environment
from tests.system.demo_end import assert_all_answered, assert_none_stays

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.usefixtures("kafka")]


def _run(*arguments: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=plain_environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.within(240)
def test_the_wheel_runs_the_demo_from_an_empty_folder(tmp_path: Path) -> None:
    """Built here, installed without network or checkout: schemas, catalog, pom and samples are all inside.

    Every request of the demo is delivered, at least 90 % are right, and no process stays.
    """
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), folder=ROOT)
    wheel = next(tmp_path.glob("*.whl"))
    clean = tmp_path / "clean"
    venv.create(clean)
    wheels = str(ROOT / ".cache" / "wheels")
    # uv, as pip takes fifteen seconds of both cores to be installed itself and to install the rest.
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-cache", "--offline", "--no-index")
    into = ("--python", str(clean / "bin" / "python"), "--no-deps")
    lock = str(ROOT / "requirements.lock")
    _run(*install, *into, "--require-hashes", "--find-links", wheels, "-r", lock, folder=tmp_path)
    _run(*install, *into, str(wheel), folder=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    printed = _run(str(clean / "bin" / "pipeline"), "demo", folder=empty, PYTHONPATH="")
    assert_all_answered(empty, printed)
    assert_none_stays(empty)

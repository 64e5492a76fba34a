"""`pipeline demo`, `up`, `submit` and `down`, as a person meets them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from pipeline.devkit.samples import requests
from tests.system.command import living_in, pipeline, plain_environment, start
from tests.system.demo_end import assert_all_answered, assert_none_stays

pytestmark = [pytest.mark.kafka, pytest.mark.system]

# These start brokers of their own, from the jars that the shared broker has fetched.
pytestmark.append(pytest.mark.usefixtures("kafka"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with a space in its path."""
    path = tmp_path / "with a space"
    path.mkdir()
    return path


def _wait(fact: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def _addresses(folder: Path) -> dict[str, str]:
    text = (folder / ".run" / "env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


# Once, from the wheel, is a part of test_wheel.py.
@pytest.mark.soak
@pytest.mark.within(240)
def test_the_demo_answers_everything_and_leaves_nothing_running(folder: Path) -> None:
    """From an empty folder, twice: exit 0, every request delivered, at least 90 % right, and no process stays."""
    for _ in range(2):
        done = pipeline("demo", folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert_all_answered(folder, done.stdout)
        assert_none_stays(folder)


@pytest.mark.soak
@pytest.mark.within(240)
def test_the_demo_in_processes_survives_kill_9_of_each_of_them(folder: Path) -> None:
    """Each stage's process and the broker die by kill -9 during the demo; it restarts them and ends with exit 0."""
    running = start("demo", "--processes", folder=folder)
    roster = folder / ".run" / "demo" / "processes.json"
    try:
        _wait(lambda: roster.exists() or running.poll() is not None, "the processes run")
        # From here on every call takes a second, so that there is something to interrupt.
        base = _addresses(folder)["OPENAI_BASE_URL"].removesuffix("/v1")
        fault = json.dumps({"kind": "slow", "times": 200, "seconds": 1.0}).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"{base}/faults", fault, {"Content-Type": "application/json"}), timeout=10
        ).close()
        _wait(lambda: _calls(base) > 0 or running.poll() is not None, "the model is called")
        first = json.loads(roster.read_text())
        for name, pid in first.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait(lambda name=name, pid=pid: _pid(roster, name) != pid or running.poll() is not None, f"{name} again")  # type: ignore[misc]  # the defaults bind the loop's values
        output, _ = running.communicate(timeout=180)
    finally:
        running.kill()
    assert running.returncode == 0, output
    assert set(first) == {"preprocess", "retrieve", "infer", "postprocess", "notify", "kafka"}
    summary = json.loads((folder / ".run" / "summary.json").read_text())
    assert (summary["delivered"], summary["dead"]) == (len(requests()), 0)
    assert_none_stays(folder)


def _calls(base: str) -> int:
    with urllib.request.urlopen(f"{base}/journal/events", timeout=10) as answer:
        return len(answer.read().splitlines())


def _pid(roster: Path, name: str) -> int:
    return int(json.loads(roster.read_text())[name]) if roster.exists() else 0


def _up(folder: Path, *options: str) -> Popen[str]:
    running = start("up", *options, folder=folder)
    _wait(lambda: (folder / ".run" / "env").exists() or running.poll() is not None, "up has written its addresses")
    return running


@pytest.mark.within(180)
def test_up_serves_submit_and_ends_clean_at_ctrl_c(folder: Path) -> None:
    """A second terminal submits to a running `up` and gets the answer; Ctrl-C ends it, and nothing stays."""
    running = _up(folder, "--samples")
    try:
        second = pipeline("up", folder=folder)
        assert second.returncode == 2
        assert "runs in this folder already" in second.stderr
        ready = pipeline("topics", "check", folder=folder)
        assert ready.returncode == 0, ready.stdout + ready.stderr
        sample = requests()[0]
        command = ("submit", "--type", sample.type, "--tenant", sample.tenant, "--input", sample.input, "--wait")
        answers = [pipeline(*command, folder=folder)]
        while sample.expect.contains[0] not in answers[-1].stdout and len(answers) < 10:
            answers.append(pipeline(*command, folder=folder))  # the documents may still be on their way
        assert answers[-1].returncode == 0, answers[-1].stdout + answers[-1].stderr
        ending = json.loads(answers[-1].stdout)
        assert ending["status"] == "completed"
        assert sample.expect.contains[0] in ending["body"]["answer"]
        refused = pipeline("submit", "--type", "nonsense", "--input", "x", "--wait", folder=folder)
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["body"]["code"] == "unknown_type"
        os.kill(running.pid, signal.SIGINT)
        running.communicate(timeout=60)
    finally:
        running.kill()
    assert not (folder / ".run" / "env").exists()
    assert_none_stays(folder)


@pytest.mark.within(180)
def test_nothing_outlives_an_up_that_is_killed(folder: Path) -> None:
    """After kill -9 of `up` its broker ends by itself, its file is recognised as stale, and `down` clears it."""
    running = _up(folder, "--no-stages")
    assert living_in(folder)
    running.kill()
    running.communicate(timeout=30)
    assert_none_stays(folder)
    assert (folder / ".run" / "env").exists()
    stale = pipeline("topics", "check", folder=folder)
    assert stale.returncode == 2
    assert "start `pipeline up`" in stale.stderr
    assert pipeline("down", folder=folder).returncode == 0
    assert not (folder / ".run" / "env").exists()


@pytest.mark.within(120)
def test_down_ends_an_up(folder: Path) -> None:
    """`pipeline down` ends a running `up` of its folder and waits until it has ended."""
    running = _up(folder, "--no-stages")
    try:
        assert pipeline("down", folder=folder).returncode == 0
        running.communicate(timeout=30)
    finally:
        running.kill()
    assert not (folder / ".run" / "env").exists()
    assert_none_stays(folder)


@pytest.mark.within(120)
def test_without_a_real_broker_the_test_broker_serves_and_says_so(folder: Path) -> None:
    """Where neither Java nor a broker is to be had, the demo runs on the built-in test broker, marked as volatile."""
    environment = plain_environment(PATH="/nonexistent", PIPELINE_CACHE=str(folder / "cache"))
    environment.pop("CI", None)
    environment.pop("JAVA_HOME", None)
    running = start("demo", folder=folder, environment=environment)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 0, output
    assert "VOLATILE" in output
    assert json.loads((folder / ".run" / "summary.json").read_text())["broker"] == "test"

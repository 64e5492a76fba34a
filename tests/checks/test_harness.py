"""The harness itself: async tests run, virtual time jumps, and hidden errors fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TESTS = """
import asyncio
import pytest
from hypothesis import given, strategies
from pipeline.devkit.clock import Stuck, wall

@pytest.fixture
def seven():
    return 7

async def boom():
    raise ValueError("unseen")

async def test_pass_async(seven):
    await asyncio.sleep(0)
    assert 7 == seven

async def test_fail_async():
    assert await asyncio.sleep(0, False)

@pytest.mark.virtual
async def test_pass_virtual():
    start = wall()
    await asyncio.sleep(86_400)
    assert 86_400 <= wall() - start < 86_401

@pytest.mark.virtual
async def test_fail_stuck():
    await asyncio.Event().wait()

@pytest.mark.within(0.2)
async def test_fail_slow():
    await asyncio.Event().wait()

@pytest.mark.within(0.2)
async def test_fail_slow_and_stubborn():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass

@given(strategies.integers())
async def test_pass_property(number):
    assert number == await asyncio.sleep(0, number)

@given(strategies.integers())
async def test_fail_property(number):
    assert await asyncio.sleep(0, number) < 1_000

async def test_fail_task_that_died_unseen():
    asyncio.create_task(boom())
    await asyncio.sleep(0)

def test_fail_future_that_died_unseen():
    async def main():
        asyncio.get_running_loop().create_future().set_exception(ValueError("unseen"))
    asyncio.run(main())

def test_fail_callback_that_died_unseen():
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
    asyncio.run(main())

def test_fail_finalizer():
    class Bad:
        def __del__(self):
            raise ValueError("unseen")
    Bad()
"""


@pytest.mark.system
def test_each_test_ends_as_its_name_says(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Async tests pass and fail like others; slow, stuck and secretly broken ones fail, and show where they stood."""
    (pytester.path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    inner = pytester.mkdir("inner")
    (inner / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text("utf-8"), "utf-8")
    (inner / "test_inner.py").write_text(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    outcome = pytester.runpytest_subprocess("-rpf", "inner/test_inner.py")

    ends = re.findall(r"^(PASSED|FAILED) \S+::test_(\w+)", outcome.stdout.str(), re.MULTILINE)
    assert set(re.findall(r"def test_(\w+)", TESTS)) == {name for _, name in ends}
    assert [] == [name for end, name in ends if not name.startswith({"PASSED": "pass", "FAILED": "fail"}[end])]
    outcome.stdout.fnmatch_lines(["*Stuck: virtual time has nothing left to wait for*", "*Stack for <Task*"])
    outcome.stdout.fnmatch_lines(["*not done within 0.2 s; its tasks were here:", "*Stack for <Task*"])

"""How tests run here: `async def` tests on asyncio, or in virtual time; and no error inside asyncio goes unseen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from pipeline.devkit.clock import Stuck, VirtualLoop

pytest_plugins = ["tests.kafka_fixture", "tests.registry_fixture"]

SECONDS = 60.0

AsyncTest = Callable[..., Coroutine[object, object, None]]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


# ------------------------------------------------------------------------------------------------ tiers
# Fixtures. A module whose tests or fixtures take one is handed out as a whole.
DEAR = ("cdc", "registry_server", "ready")
TIERS = ("heavy", "kafka", "local", "soak", "system")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out, by their text, modules that have no test of the chosen tier: to import them all takes seconds."""
    if not collection_path.name.startswith("test_"):
        return None
    chosen = config.option.markexpr
    unwanted = [name for name in TIERS if f"not {name}" in chosen]
    wanted = [name for name in TIERS if name not in unwanted and re.search(rf"\b{name}\b", chosen)]
    text = collection_path.read_text(encoding="utf-8")
    lacking = wanted and not re.search(_marks(wanted), text)
    whole = unwanted and re.search(rf"^pytestmark = .*{_marks(unwanted)}", text, re.MULTILINE)
    return True if lacking or whole else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Refuse a mark of a tier that the text of the test's module does not show: its tier would leave it out unseen."""
    text = _source(item.path)
    unseen = [
        mark.name for mark in item.iter_markers() if mark.name in TIERS and not re.search(_marks([mark.name]), text)
    ]
    if unseen:
        raise pytest.UsageError(f"{item.nodeid} is marked {unseen}: let its own module say pytest.mark.{unseen[0]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take longest: else one of them runs on when all others are done."""
    items.sort(key=_limit, reverse=True)


class _Sharing(LoadScopeScheduling):  # type: ignore[misc]  # as above
    """Hands out tests one by one, but those together, to one worker, that share what is dear to start.

    xdist has marks for this; with pytest 9.2 it does not heed them.
    """

    def _split_scope(self, nodeid: str) -> str:
        text = _source(self.config.rootpath / nodeid.partition("::")[0])
        return next((name for name in DEAR if re.search(rf"\b{name}: ", text)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Sharing | None:
    """Schedule as `_Sharing` does where `--dist loadgroup` is wanted."""
    return _Sharing(config, log) if config.getvalue("dist") == "loadgroup" else None


def _marks(names: Sequence[str]) -> str:
    return rf"pytest\.mark\.({'|'.join(names)})\b"


@functools.cache
def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ async tests
@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in a loop of its own, in virtual time if it is marked so; leave others to pytest."""
    limit, virtual = _limit(pyfuncitem), pyfuncitem.get_closest_marker("virtual") is not None
    by_hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    if by_hypothesis is not None and inspect.iscoroutinefunction(by_hypothesis.inner_test):
        by_hypothesis.inner_test = _in_a_loop(by_hypothesis.inner_test, limit, virtual=virtual)
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    _in_a_loop(pyfuncitem.obj, limit, virtual=virtual)(**{name: pyfuncitem.funcargs[name] for name in names})
    gc.collect(1)  # tasks that died unseen report when they are freed
    return True


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("within")
    return float(marker.args[0]) if marker else SECONDS


def _in_a_loop(test: AsyncTest, limit: float, *, virtual: bool) -> Callable[..., None]:
    """Make a plain function of an async one: a new loop for each call, which ends by `limit` seconds of real time."""

    @functools.wraps(test)
    def call(*args: object, **kwargs: object) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as runner:
            try:
                runner.run(_bounded(test(*args, **kwargs), limit))
            except Stuck as error:
                error.add_note(_stacks(runner.get_loop()))
                raise

    return call


async def _bounded(test: Coroutine[object, object, None], limit: float) -> None:
    """Await the test; cancel and fail it after `limit` real seconds, also where the loop's own time is virtual."""
    loop, task, stacks = asyncio.get_running_loop(), asyncio.current_task(), list[str]()

    def expire() -> None:
        stacks.append(_stacks(loop))
        if task is not None:
            task.cancel()

    def ring() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed at this very moment
            loop.call_soon_threadsafe(expire)

    timer = threading.Timer(limit, ring)
    timer.daemon = True
    timer.start()
    try:
        await test
    except asyncio.CancelledError:
        if not stacks:
            raise
    finally:
        timer.cancel()
    if stacks:
        pytest.fail(f"not done within {limit:g} s; its tasks were here:\n{stacks[0]}")


def _stacks(loop: asyncio.AbstractEventLoop) -> str:
    text = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=text)
    return text.getvalue()


# ------------------------------------------------------------------------------------------------ logs
@pytest.fixture(autouse=True)
def _logs_of_its_own() -> Iterator[None]:
    """Undo what a test has set up for its logs: a command's may go to a captured stream, which is closed after it."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


# ------------------------------------------------------------------------------------------------ unseen errors
class _Unseen(logging.Handler):
    """Collects what asyncio can only log: exceptions that nobody awaited, tasks lost while running."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))

    def take(self) -> str:
        text, self.errors = "\n".join(self.errors), []
        return text


_unseen = _Unseen()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail the test in which asyncio logged an error, even if all its assertions hold."""
    logging.getLogger("asyncio").addHandler(_unseen)
    result = yield
    if errors := _unseen.take():
        pytest.fail(f"asyncio logged an error that nobody saw:\n{errors}", pytrace=False)
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for errors that came to light after the last test."""
    gc.collect()
    if errors := _unseen.take():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nasyncio logged an error that nobody saw, after the last test:\n{errors}")  # noqa: T201  # no test is left to fail

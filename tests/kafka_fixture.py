"""One real Kafka broker for all tests of a run that are marked `kafka`."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from pipeline.devkit.kafka_errors import Missing
from pipeline.resources import resource
from pipeline.settings import Settings


def kafka_config(data: Path, bootstrap_servers: str | None = None) -> EmbeddedKafkaConfig:
    """How tests start a real broker: with the jars of the machine's cache, the topics in `data`."""
    java_home = os.environ.get("JAVA_HOME")
    return EmbeddedKafkaConfig(
        pom_dir=resource("deploy", "kafka"),
        cache=Path(os.environ.get("PIPELINE_CACHE") or Settings().cache).expanduser(),
        data=data,
        bootstrap_servers=bootstrap_servers,
        require_real=True,
        java_home=Path(java_home) if java_home else None,
    )


class _Common:
    """One broker for all processes of a run, which else would each pay for a Java of its own.

    The first that wants it starts it. It ends it, too, once none of the others has it any more: a child ends with its
    parent. `folder` is known to all.
    """

    def __init__(self, folder: Path, bootstrap_servers: str | None) -> None:
        folder.mkdir(exist_ok=True)
        self._config = kafka_config(folder / "data", bootstrap_servers)
        self._address = folder / "address"
        self._runner, self._stack = asyncio.Runner(), AsyncExitStack()
        self._starting, self._users = (folder / "starting").open("w"), (folder / "users").open("w")
        self._ours = False

    def join(self) -> Broker:
        """Start it, or find it started; until `leave` it does not end. Raises `Missing`."""
        fcntl.flock(self._starting, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if self._address.exists():
                return Broker(self._address.read_text("utf-8"), "external")
            broker = self._runner.run(self._stack.enter_async_context(embedded_kafka(self._config)))
            self._address.write_text(broker.bootstrap_servers, "utf-8")
            self._ours = True
            return broker
        finally:
            fcntl.flock(self._starting, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Have no more use for it. Who started it waits for all others, and ends it."""
        if self._ours:
            fcntl.flock(self._users, fcntl.LOCK_EX)
            self._address.unlink()
        with self._starting, self._users, self._runner:
            self._runner.run(self._stack.aclose())


_COMMON = pytest.StashKey[_Common]()


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """The broker that all tests share: KAFKA_BOOTSTRAP_SERVERS, or an embedded one of its own for this run.

    It is never restarted and never empty: tests use topics and groups of their own. Where the machine has neither Java
    nor jars the tests are skipped, saying what is missing; in CI that is an error.
    """
    folder = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):  # one process of several, each of which has a folder in that of the run
        folder = folder.parent
    common = pytestconfig.stash[_COMMON] = _Common(folder / "kafka", os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    try:
        return common.join()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the broker. Not in the fixture, as a test would seem to hang for as long as others need the broker."""
    if common := session.config.stash.get(_COMMON, None):
        common.leave()


@pytest.fixture
def own_kafka(kafka: Broker, tmp_path: Path) -> EmbeddedKafkaConfig:
    """For a test that starts, kills and restarts a broker of its own: like the shared one, with other data."""
    return kafka_config(tmp_path / "kafka")

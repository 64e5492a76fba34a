"""One real Kafka broker for all tests that are marked `kafka`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker that all tests share: KAFKA_BOOTSTRAP_SERVERS, or an embedded one of its own for this session.

    It is never restarted and never empty: tests use topics and groups of their own. Where the machine has neither Java
    nor jars the tests are skipped, saying what is missing; in CI that is an error.
    """
    config = kafka_config(tmp_path_factory.mktemp("kafka"), os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            broker = runner.run(stack.enter_async_context(embedded_kafka(config)))
        except Missing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield broker
        runner.run(stack.aclose())


@pytest.fixture
def own_kafka(kafka: Broker, tmp_path: Path) -> EmbeddedKafkaConfig:
    """For a test that starts, kills and restarts a broker of its own: like the shared one, with other data."""
    return kafka_config(tmp_path / "kafka")

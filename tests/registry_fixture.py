"""A real schema registry for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pipeline.devkit.kafka_errors import Missing
from pipeline.devkit.registry_server import RegistryServer, RegistryServerConfig, embedded_registry
from pipeline.resources import resource
from pipeline.settings import Settings


def registry_config(data: Path, *, durable: bool = False) -> RegistryServerConfig:
    """How tests start a real registry: with the program of the machine's cache, the schemas in `data`."""
    java_home = os.environ.get("JAVA_HOME")
    return RegistryServerConfig(
        pom=resource("deploy", "registry", "pom.xml"),
        cache=Path(os.environ.get("PIPELINE_CACHE") or Settings().cache).expanduser(),
        data=data,
        durable=durable,
        java_home=Path(java_home) if java_home else None,
    )


def run_registry(data: Path) -> Iterator[RegistryServer]:
    """Run one until the generator ends. Where the machine lacks something tests are skipped; in CI that is an error."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            server = runner.run(stack.enter_async_context(embedded_registry(registry_config(data))))
        except Missing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield server
        runner.run(stack.aclose())


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """The registry that tests share, never restarted and never empty: they use prefixes of their own.

    A schema has one id under whatever subjects it is registered.
    """
    yield from run_registry(tmp_path_factory.mktemp("registry"))

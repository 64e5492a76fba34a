"""Tests of pipeline/wire/registry_wait.py."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.ports import free_ports
from pipeline.resources import resource
from pipeline.wire import registry_wait
from pipeline.wire.codec import AvroCodec
from pipeline.wire.registry import RegistryConfig, open_registry
from pipeline.wire.registry_wait import wait_for_schemas
from pipeline.wire.schemas import load_schemas
from tests.wire.fake_registry import FakeRegistry

pytestmark = pytest.mark.local

SCHEMAS = load_schemas(resource("schemas"))


async def test_a_registry_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens its port, and then lacks the schema until a person registers it; what is waited for is said."""
    monkeypatch.setattr(registry_wait, "LOOK_SECONDS", 0.02)
    port, said, registry = free_ports(1)[0], asyncio.Queue[str](), FakeRegistry()
    config = RegistryConfig(f"http://127.0.0.1:{port}", "pipeline")
    async with AsyncExitStack() as stack, open_registry(config, time.time) as client:
        codec = AvroCodec(SCHEMAS, client)
        starting = asyncio.create_task(wait_for_schemas(codec, {"failures"}, 30.0, said.put_nowait))
        assert f"the schema registry at http://127.0.0.1:{port} cannot be reached" in await said.get()
        await stack.enter_async_context(registry.running(port))
        while "lacks the newest schema of failures" not in await said.get():
            pass
        registry.add(SCHEMAS.newest("failures").schema.text, "pipeline.failures-value")
        await starting


async def test_a_registry_that_stays_away_ends_the_start() -> None:
    """After PIPELINE_STARTUP_SECONDS, with the sentence that says where it should be."""
    config = RegistryConfig(f"http://127.0.0.1:{free_ports(1)[0]}", "pipeline")
    async with open_registry(config, time.time) as client:
        with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1.*cannot be reached.*PIPELINE_STARTUP_SECONDS"):
            await wait_for_schemas(AvroCodec(SCHEMAS, client), {"failures"}, 0.1, lambda _: None)

"""Tests of pipeline/world.py."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from pipeline.core.errors import ConfigurationError
from pipeline.core.stage import Stage
from pipeline.devkit.simulator import simulator
from pipeline.settings import Environment, load
from pipeline.stages.infer import Infer
from pipeline.wiring import STAGES, catalog_of
from pipeline.world import World

pytestmark = pytest.mark.local

INFER: Stage = STAGES["infer"]


def made(stack: AsyncExitStack, **environ: str) -> World:
    """Make a world of these variables."""
    configured = load(Environment(environ), STAGES)
    return World(configured, catalog_of(configured), stack, 1, time.time)


async def test_without_a_model_nothing_embeds() -> None:
    """Dense vectors are asked for by EMBEDDING_MODEL; unset or empty, there are none."""
    async with AsyncExitStack() as stack:
        assert await made(stack, OPENAI_API_KEY="any").embedder() is None
        assert await made(stack, EMBEDDING_MODEL="").embedder() is None


async def test_a_model_without_a_key_names_the_variable() -> None:
    """The embedding model is the provider's, so it needs the provider's key."""
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
            await made(stack, EMBEDDING_MODEL="small").embedder()


async def test_one_embedder_serves_all_beside_the_chat_model() -> None:
    """It is opened once, asks the provider's address, and shares the metrics of models with the chat model."""
    async with simulator() as server, AsyncExitStack() as stack:
        world = made(stack, EMBEDDING_MODEL="small", OPENAI_API_KEY="any", OPENAI_BASE_URL=server.base_url)
        for metric in vars(world._model_metrics).values():
            stack.callback(REGISTRY.unregister, metric)
        handler = await world.handler(INFER)
        embedder = await world.embedder()
        assert embedder is not None
        assert embedder is await world.embedder()
        answer = await embedder.embed(["A parcel."])
        counted = REGISTRY.get_sample_value("pipeline_model_tokens_total", {"model": "small", "direction": "input"})
    assert isinstance(handler, Infer)
    assert (embedder.model, len(answer.vectors)) == ("small", 1)
    assert counted == answer.tokens

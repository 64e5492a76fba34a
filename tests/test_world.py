"""Tests of pipeline/world.py."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pipeline.core.errors import ConfigurationError, Defer, Fail
from pipeline.core.stage import Stage
from pipeline.devkit.fakes import FakeFreshness
from pipeline.devkit.ports import free_ports
from pipeline.devkit.simulator import simulator
from pipeline.settings import Environment, load
from pipeline.stages.infer import Infer
from pipeline.wiring import STAGES, catalog_of
from pipeline.world import FreshnessOnDemand, World

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


TABLES = """
tables:
  app.public.notes:
    {source: notes, id: id, tenant: {constant: acme}, body: body, reread: SELECT body FROM notes WHERE id = $1}
slot: notes_slot
"""


def mapped(folder: Path) -> str:
    """Write a mapping that asks the source database, and return its path."""
    (folder / "tables.yaml").write_text(TABLES)
    return str(folder / "tables.yaml")


async def test_a_query_without_a_database_names_the_variable(tmp_path: Path) -> None:
    """Found at the start, and not by the first record that needs it; without queries nothing is asked for."""
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match="SOURCE_DATABASE_URL"):
            await made(stack, PIPELINE_TABLES=mapped(tmp_path)).rereads()
        world = made(stack)
        assert await world.rereads() is await world.rereads()


async def test_a_database_that_is_away_does_not_stop_the_start(tmp_path: Path) -> None:
    """Its queries are looked at where it answers; else records wait for it."""
    away = f"postgresql://127.0.0.1:{free_ports(1)[0]}/shop"
    async with AsyncExitStack() as stack:
        world = made(stack, PIPELINE_TABLES=mapped(tmp_path), SOURCE_DATABASE_URL=away)
        await world.rereads()
        with pytest.raises(Defer):
            await world.check_source()


async def test_how_fresh_the_index_is_costs_nothing_until_somebody_asks(tmp_path: Path) -> None:
    """A worker whose requests never ask needs no broker for it; a mapping that is wrong is found at the start."""
    async with AsyncExitStack() as stack:
        world = made(stack, PIPELINE_TABLES=mapped(tmp_path), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        fresh = await world._freshness()
        with pytest.raises(Fail, match="SOURCE_DATABASE_URL"):
            await fresh.caught_up("notes", 1, "me")
        (tmp_path / "tables.yaml").write_text("tables: {}")
        with pytest.raises(ConfigurationError, match=r"tables\.yaml"):
            await made(stack, PIPELINE_TABLES=str(tmp_path / "tables.yaml"))._freshness()


async def test_the_first_questions_open_what_answers_once() -> None:
    """However many ask at once; one that is cut short, or fails, leaves it to the next."""
    opened: list[FakeFreshness] = []
    troubles = [OSError("no route")]

    async def opening() -> FakeFreshness:
        await asyncio.sleep(0)
        if troubles:
            raise troubles.pop()
        opened.append(FakeFreshness())
        return opened[-1]

    fresh = FreshnessOnDemand(opening)
    cut = asyncio.create_task(fresh.caught_up("notes", 1, "first"))
    await asyncio.sleep(0)
    cut.cancel()
    with pytest.raises(OSError, match="no route"):
        await fresh.caught_up("notes", 1, "second")
    await asyncio.gather(*(fresh.caught_up("notes", 1, f"asker {number}") for number in range(20)))
    assert [len(one.asked) for one in opened] == [20]

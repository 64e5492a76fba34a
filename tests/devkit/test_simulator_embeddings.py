"""The simulator's embeddings, through the real openai library and over plain HTTP."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest

from pipeline.devkit.simulator import Fault, FaultKind, Simulator, SimulatorConfig, simulator
from pipeline.devkit.simulator_embeddings import (
    MOST_TEXTS,
    EmbeddingRequest,
    answer_body,
    parse_embedding_request,
    too_long,
)
from pipeline.devkit.simulator_faults import FaultPlan
from pipeline.devkit.simulator_request import RequestRefused
from pipeline.devkit.simulator_vectors import DIMENSIONS, vector
from tests.devkit.asking import connected

pytestmark = pytest.mark.local

TEXTS = ["A parcel stays for seven days.", "The office is in Ghent."]


@asynccontextmanager
async def asking(**config: Any) -> AsyncIterator[tuple[Simulator, openai.AsyncOpenAI]]:
    """Run a simulator and a client of it."""
    async with simulator(SimulatorConfig(**config)) as sim, connected(sim) as client:
        yield sim, client


async def test_texts_become_vectors_with_usage() -> None:
    """In their order, in base64 as the library asks by default and in numbers, alike; the journal notes both."""
    async with asking() as (sim, client):
        encoded = await client.embeddings.create(model="small", input=TEXTS)
        plain = await client.embeddings.create(model="small", input=TEXTS, encoding_format="float")
        assert (len(sim.embeddings.calls), len(sim.journal.calls)) == (2, 0)
        assert [sim.texts.times(text) for text in TEXTS] == [2, 2]
    assert [item.embedding for item in encoded.data] == [item.embedding for item in plain.data]
    assert [tuple(item.embedding) for item in plain.data] == [vector(text) for text in TEXTS]
    assert [item.index for item in plain.data] == [0, 1]
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


async def test_dimensions_can_be_asked_for() -> None:
    """As newer models allow; a single text needs no array."""
    async with asking() as (_, client):
        answer = await client.embeddings.create(model="small", input=TEXTS[0], dimensions=16)
        usual = await client.embeddings.create(model="small", input=TEXTS[0])
    assert (len(answer.data[0].embedding), len(usual.data[0].embedding)) == (16, DIMENSIONS)


@pytest.mark.parametrize(
    "config,more",
    [
        ({"models": ("other",)}, {}),
        ({}, {"input": [*TEXTS, ""]}),
        ({}, {"input": []}),
        ({}, {"input": [[1, 2, 3]]}),
        ({}, {"input": ["a"] * (MOST_TEXTS + 1)}),
        ({"text_tokens": 5}, {}),
        ({}, {"encoding_format": "hex"}),
        ({}, {"dimensions": 0}),
        ({}, {"extra_body": {"temperature": 1}}),
    ],
)
async def test_what_the_api_refuses_is_refused(config: dict[str, Any], more: dict[str, Any]) -> None:
    """Unknown models and parameters, empty texts, and texts that are too long or too many, embed nothing."""
    async with asking(**config) as (sim, client):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            await client.embeddings.create(**{"model": "small", "input": TEXTS, **more})
        assert sim.texts.total == 0
        assert sim.embeddings.calls[0].status in {400, 404}


def test_all_texts_together_have_a_limit() -> None:
    """A request of 300,000 tokens passes, and one of more does not."""
    config = SimulatorConfig()
    within, beyond = (EmbeddingRequest("m", ("x" * 30_000,) * texts, 4, encoded=True) for texts in (40, 41))
    refused = too_long(beyond, config)
    assert (too_long(within, config), refused and refused.code) == (None, "max_tokens_per_request")


async def test_keys_rates_and_capacity_hold_here_too() -> None:
    """A wrong key is a 401; what goes over a limit is a 429 that says when to come back."""
    async with asking(api_key="right") as (_, client):
        with pytest.raises(openai.AuthenticationError):
            await client.embeddings.create(model="small", input=TEXTS)
    for limit in ({"requests_per_minute": 1}, {"capacity": 0}):
        async with asking(**limit) as (sim, client):
            with pytest.raises(openai.RateLimitError) as refused:
                await asyncio.gather(*(client.embeddings.create(model="small", input=TEXTS) for _ in range(2)))
            assert int(refused.value.response.headers["retry-after"]) >= 1
            assert sim.embeddings.calls[-1].outcome == "rate_limit_exceeded"


async def test_faults_strike_where_they_are_meant_to() -> None:
    """By endpoint, by a text, and by what an answer of that kind can get wrong."""
    async with asking() as (sim, client):
        sim.faults.add(
            Fault(kind=FaultKind.SERVER_ERROR, endpoint="chat"),
            Fault(kind=FaultKind.REFUSAL),
            Fault(kind=FaultKind.UNAVAILABLE, match="ghent"),
        )
        await client.embeddings.create(model="small", input=TEXTS[:1])
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model="small", input=TEXTS)
        assert [call.outcome for call in sim.embeddings.calls] == ["ok", "unavailable"]
        assert sim.texts.total == 1
    plan = FaultPlan([Fault(kind=FaultKind.NOT_FINITE), Fault(kind=FaultKind.SERVER_ERROR, endpoint="embeddings")])
    assert plan.strike("question") is None


@pytest.mark.parametrize(
    "kind,lengths",
    [
        (FaultKind.FEWER_VECTORS, [4]),
        (FaultKind.MORE_VECTORS, [4, 4, 4]),
        (FaultKind.WRONG_LENGTH, [2, 2]),
        (FaultKind.EMPTY_VECTORS, [0, 0]),
        (FaultKind.DISORDERED, [4, 4]),
        (FaultKind.NOT_FINITE, [4, 4]),
    ],
)
def test_wrong_vectors(kind: FaultKind, lengths: list[int]) -> None:
    """Each fault makes an answer wrong in its one way."""
    request = parse_embedding_request(json.dumps({"model": "m", "input": TEXTS, "dimensions": 4}).encode())
    right, wrong = answer_body(request), answer_body(request, kind)
    assert [len(item["embedding"]) for item in wrong["data"]] == lengths
    assert (wrong["data"] == right["data"][::-1]) is (kind is FaultKind.DISORDERED)
    assert any(math.isnan(number) for item in wrong["data"] for number in item["embedding"]) is (
        kind is FaultKind.NOT_FINITE
    )


def test_a_body_that_is_no_request_is_refused() -> None:
    """As for chat, by the parameter at fault."""
    for raw in (b"", b"[]", b"{}", b'{"model": "m"}', b'{"model": "m", "input": 5}'):
        with pytest.raises(RequestRefused):
            parse_embedding_request(raw)


async def test_other_processes_read_what_was_embedded() -> None:
    """The calls and the texts as JSON lines; a reset forgets both."""
    async with asking() as (sim, client), aiohttp.ClientSession() as http:
        await client.embeddings.create(model="small", input=[*TEXTS, TEXTS[0]])
        root = sim.base_url.removesuffix("/v1")
        calls = await _lines(http, f"{root}/journal/embeddings")
        texts = await _lines(http, f"{root}/journal/texts")
        async with http.post(f"{root}/journal/reset"):
            pass
        after = await _lines(http, f"{root}/journal/texts")
    assert [(call["outcome"], call["question"]) for call in calls] == [("ok", TEXTS[0])]
    assert [(row["text"], row["times"]) for row in texts] == [(TEXTS[0], 2), (TEXTS[1], 1)]
    assert after == []


async def test_a_slow_answer_can_be_left() -> None:
    """A caller that leaves is noted as such."""
    async with asking() as (sim, client):
        sim.faults.add(Fault(kind=FaultKind.SLOW, seconds=30.0))
        with pytest.raises(openai.APITimeoutError):
            await client.embeddings.create(model="small", input=TEXTS, timeout=0.1)
        while sim.embeddings.in_flight:
            await asyncio.sleep(0.01)
        assert [call.outcome for call in sim.embeddings.calls] == ["abandoned"]


async def _lines(http: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with http.get(url) as answer:
        return [json.loads(line) for line in (await answer.text()).splitlines()]

"""Tests of pipeline/clients/embed.py, against the simulator on the loopback address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from pipeline.clients.circuit import TRIPS
from pipeline.clients.embed import EmbeddingLimits, open_embedder
from pipeline.core.errors import ConfigurationError, Defer, Reject, Retry
from pipeline.core.index_ports import Embedder
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.simulator import Fault, FaultKind, Simulator, SimulatorConfig, simulator
from pipeline.devkit.simulator_vectors import DIMENSIONS
from pipeline.telemetry.metrics import ModelMetrics
from tests.contracts import embedder_contract as embedding
from tests.contracts.embedder_contract import FAR, NEAR, EmbedderContract

pytestmark = pytest.mark.local

KEY = "sk-test-0123456789abcdef"
MODEL = "text-embedding-3-small"
SECRET = "What nobody else may read."

FAULTS = {
    "rate_limit": Fault(kind=FaultKind.RATE_LIMIT, retry_after=embedding.WAIT),
    "server_error": Fault(kind=FaultKind.SERVER_ERROR),
    "refused": Fault(kind=FaultKind.CONTEXT_LENGTH),
    "bad_answer": Fault(kind=FaultKind.NOT_FINITE),
}


class Simulated:
    """The client, with the simulator as its provider."""

    def __init__(self, embedder: Embedder, server: Simulator) -> None:
        self.embedder = embedder
        self.server = server

    def trouble(self, kind: embedding.Trouble) -> None:
        self.server.faults.add(FAULTS[kind])

    def now(self) -> float:
        return time.time()


@asynccontextmanager
async def opened(
    limits: EmbeddingLimits | None = None, metrics: ModelMetrics | None = None
) -> AsyncIterator[Simulated]:
    """Open the client on a simulator that knows `KEY`."""
    async with (
        simulator(SimulatorConfig(api_key=KEY)) as server,
        open_embedder(server.base_url, KEY, MODEL, limits or EmbeddingLimits(), time.time, metrics) as embedder,
    ):
        yield Simulated(embedder, server)


@asynccontextmanager
async def answering(answer: web.Response | str) -> AsyncIterator[Embedder]:
    """Open the client on a server that always answers the same; a text is a body of JSON."""

    async def reply(_request: web.Request) -> web.Response:
        told = (
            answer if isinstance(answer, web.Response) else web.Response(text=answer, content_type="application/json")
        )
        return web.Response(body=told.body, status=told.status, headers=told.headers)

    app = web.Application()
    app.router.add_post("/embeddings", reply)
    async with (
        listening(app, 0, "answering") as port,
        open_embedder(f"http://{HOST}:{port}", KEY, MODEL, EmbeddingLimits(), time.time) as embedder,
    ):
        yield embedder


class TestOpenAI(EmbedderContract):
    """The real client keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[embedding.Vectors]:
        async with opened() as simulated:
            yield simulated


async def test_concurrent_calls_become_few_requests() -> None:
    """Fifty calls at once are one request, no text is embedded twice, and the provider's tokens are all counted."""
    registry = CollectorRegistry()
    async with opened(metrics=ModelMetrics(registry)) as simulated:
        calls = ([f"Chunk {number}.", "The title of all."] for number in range(50))
        answers = await asyncio.gather(*map(simulated.embedder.embed, calls))
        (call,) = simulated.server.embeddings.calls
        assert (simulated.server.texts.total, simulated.server.texts.repeated) == (51, ())
    assert sum(answer.tokens for answer in answers) == call.usage.prompt_tokens
    counted = registry.get_sample_value("pipeline_model_tokens_total", {"model": MODEL, "direction": "input"})
    assert counted == call.usage.prompt_tokens
    assert {len(vector) for answer in answers for vector in answer.vectors} == {DIMENSIONS}


async def test_the_cap_holds_on_the_wire() -> None:
    """However much is asked for, no more requests are in flight than were allowed, and none fails."""
    async with opened(EmbeddingLimits(concurrency=3, texts=2)) as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.SLOW, seconds=0.01, times=None))
        answer = await simulated.embedder.embed([f"Chunk {number}." for number in range(40)])
        assert (len(answer.vectors), simulated.server.embeddings.max_in_flight) == (40, 3)
        assert len(simulated.server.embeddings.calls) == 20


@pytest.mark.parametrize(
    "kind,told",
    [
        (FaultKind.FEWER_VECTORS, "1 vectors for 2 texts"),
        (FaultKind.MORE_VECTORS, "3 vectors for 2 texts"),
        (FaultKind.NOT_FINITE, "not finite"),
        (FaultKind.EMPTY_VECTORS, "empty"),
        (FaultKind.NOT_JSON, "not JSON"),
        (FaultKind.HTML, "not JSON"),
        (FaultKind.WRONG_SHAPE, "no list of vectors"),
        (FaultKind.CUT, "no connection"),
    ],
)
async def test_bad_answers_are_retried(kind: FaultKind, told: str) -> None:
    """Each is one attempt with a sentence that names the host and not the text, and the next request works."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=kind))
        with pytest.raises(Retry, match=told) as failed:
            await simulated.embedder.embed([NEAR, SECRET])
        assert HOST in failed.value.reason
        assert SECRET not in failed.value.reason
        assert (await simulated.embedder.embed([NEAR])).vectors


async def test_another_length_than_the_first_is_retried() -> None:
    """A model that was exchanged behind the endpoint is found out; the first answer says how long vectors are."""
    async with opened() as simulated:
        await simulated.embedder.embed([NEAR])
        simulated.server.faults.add(Fault(kind=FaultKind.WRONG_LENGTH))
        with pytest.raises(Retry, match="128 numbers, and those before had 256"):
            await simulated.embedder.embed([FAR])


async def test_the_order_of_the_answer_does_not_matter() -> None:
    """Vectors are told apart by their index."""
    async with opened() as simulated:
        right = await simulated.embedder.embed([NEAR, FAR])
        simulated.server.faults.add(Fault(kind=FaultKind.DISORDERED))
        assert (await simulated.embedder.embed([NEAR, FAR])).vectors == right.vectors


async def test_numbers_are_read_where_base64_is_not_known() -> None:
    """A server that ignores the format that was asked for, sends no index and no usage, is understood."""
    async with answering('{"data": [{"embedding": [0.6, 0.8]}]}') as embedder:
        answer = await embedder.embed([NEAR])
    assert [list(vector) for vector in answer.vectors] == [[0.6, 0.8]]
    assert answer.tokens > 0


async def test_missing_usage_is_estimated() -> None:
    """A provider that sends no usage is tolerated."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.NO_USAGE))
        assert (await simulated.embedder.embed([NEAR])).tokens > 0


@pytest.mark.parametrize("status,raised", [(400, Reject), (401, Defer), (404, Reject), (429, Defer), (500, Retry)])
async def test_what_the_provider_says_stays_with_it(status: int, raised: type[Exception]) -> None:
    """An error that quotes the text, as its message or as its code, reaches no reason; the key and the path neither."""
    told = f'{{"error": {{"code": "{SECRET}", "type": "{SECRET}", "message": "Bad: {SECRET} {KEY}"}}}}'
    async with answering(web.Response(text=told, status=status, content_type="application/json")) as embedder:
        with pytest.raises(raised) as failed:
            await embedder.embed([SECRET])
    reason = str(failed.value)
    assert f"the embedding endpoint {HOST}:" in reason
    assert str(status) in reason
    assert SECRET not in reason
    assert KEY not in reason


async def test_a_bad_text_of_one_caller_stops_no_other() -> None:
    """The provider refuses a request for one text in it; the other callers of that request are answered."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.CONTEXT_LENGTH, match="poison", times=None))
        calls = map(simulated.embedder.embed, (["one"], ["poison"], ["two"]))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(end, Reject) for end in ends] == [False, True, False]


async def test_a_closed_account_is_asked_once() -> None:
    """A refused key holds the endpoint: the next call is deferred without being made."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.UNAUTHORIZED, times=None))
        for text in ("one", "two", "three"):
            with pytest.raises(Defer) as deferred:
                await simulated.embedder.embed([text])
            assert deferred.value.until > time.time() + 30
        assert len(simulated.server.embeddings.calls) == 1


async def test_an_endpoint_that_is_down_is_left_alone() -> None:
    """After ten failures in a row calls are deferred, so that an outage uses up nobody's attempts."""
    async with opened(EmbeddingLimits(wait=0.0)) as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.FEWER_VECTORS, times=None))
        for _ in range(TRIPS - 1):
            with pytest.raises(Retry):
                await simulated.embedder.embed([NEAR])
        for _ in range(3):
            with pytest.raises(Defer):
                await simulated.embedder.embed([NEAR])
        assert len(simulated.server.embeddings.calls) == TRIPS


async def test_a_request_ends_with_its_time() -> None:
    """An endpoint that takes longer is left."""
    async with opened(EmbeddingLimits(timeout=0.1)) as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.SLOW, seconds=30.0))
        with pytest.raises(Retry, match="no answer within") as failed:
            await simulated.embedder.embed([NEAR])
    assert failed.value.code == "call_timeout"


async def test_nobody_there_is_retried() -> None:
    """A connection that is refused is one attempt."""
    async with listening(web.Application(), 0, "nobody") as port:
        address = f"http://{HOST}:{port}"
    async with open_embedder(address, KEY, MODEL, EmbeddingLimits(), time.time) as embedder:
        with pytest.raises(Retry) as failed:
            await embedder.embed([NEAR])
    assert failed.value.code == "no_connection"


@pytest.mark.parametrize(
    "name,key,model,address",
    [
        ("EMBEDDING_MODEL", KEY, " ", "http://127.0.0.1:1/v1"),
        ("EMBEDDING_MODEL", KEY, "a\nb", "http://127.0.0.1:1/v1"),
        ("OPENAI_API_KEY", "", MODEL, "http://127.0.0.1:1/v1"),
        ("OPENAI_BASE_URL", KEY, MODEL, "host/v1"),
    ],
)
async def test_what_cannot_work_names_its_variable(name: str, key: str, model: str, address: str) -> None:
    """A mistake in the configuration stops the start with a sentence."""
    with pytest.raises(ConfigurationError, match=name):
        async with open_embedder(address, key, model, EmbeddingLimits(), time.time):
            pass

"""Tests of pipeline/clients/llm.py, against the simulator on the loopback address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from pipeline.clients.llm import open_chat_model, request_body
from pipeline.core.errors import ConfigurationError, Defer, Reject, Retry
from pipeline.core.ports import ChatModel
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.simulator import Fault, FaultKind, Simulator, SimulatorConfig, simulator
from pipeline.telemetry.metrics import ModelMetrics
from tests.contracts import chat_model_contract as chat
from tests.contracts.chat_model_contract import CALL, ChatModelContract

pytestmark = pytest.mark.local

KEY = "sk-test-0123456789abcdef"

FAULTS = {
    "rate_limit": Fault(kind=FaultKind.RATE_LIMIT, retry_after=chat.WAIT),
    "server_error": Fault(kind=FaultKind.SERVER_ERROR),
    "malformed": Fault(kind=FaultKind.CONTEXT_LENGTH),
    "refusal": Fault(kind=FaultKind.REFUSAL),
    "empty": Fault(kind=FaultKind.EMPTY),
    "filtered": Fault(kind=FaultKind.CONTENT_FILTER),
    "no_usage": Fault(kind=FaultKind.NO_USAGE),
}


class Simulated:
    """The client, with the simulator as its provider."""

    def __init__(self, model: ChatModel, server: Simulator) -> None:
        self.model = model
        self.server = server

    def trouble(self, kind: chat.Trouble) -> None:
        self.server.faults.add(FAULTS[kind])

    def now(self) -> float:
        return time.time()


@asynccontextmanager
async def opened(concurrency: int = 8, key: str = KEY) -> AsyncIterator[Simulated]:
    """Open the client on a simulator that knows `KEY`."""
    async with (
        simulator(SimulatorConfig(api_key=KEY)) as server,
        open_chat_model(server.base_url, key, concurrency, time.time) as model,
    ):
        yield Simulated(model, server)


class TestOpenAI(ChatModelContract):
    """The real client keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[chat.Provider]:
        async with opened() as simulated:
            yield simulated


async def test_the_provider_sees_the_event_as_request_id() -> None:
    """Each call carries the event's id, so that a call can be found at the provider, and repeated there as the same."""
    async with opened() as simulated:
        answer = await simulated.model.complete(CALL)
        (call,) = simulated.server.journal.calls
    assert call.key == CALL.request_id
    assert answer.request_id.startswith("req_")
    assert answer.latency > 0


@pytest.mark.parametrize(
    "kind,code",
    [
        (FaultKind.NOT_JSON, "unreadable_answer"),
        (FaultKind.HTML, "unreadable_answer"),
        (FaultKind.WRONG_SHAPE, "unreadable_answer"),
        (FaultKind.CUT, "no_connection"),
        (FaultKind.UNAVAILABLE, "server_error"),
    ],
)
async def test_broken_answers_are_retried(kind: FaultKind, code: str) -> None:
    """Junk with a 200, a page, another shape, half a body and a 503 are each one attempt, and the next call works."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=kind))
        with pytest.raises(Retry) as failed:
            await simulated.model.complete(CALL)
        assert failed.value.code == code
        assert (await simulated.model.complete(CALL)).text


@pytest.mark.parametrize("kind", [FaultKind.INSUFFICIENT_QUOTA, FaultKind.FORBIDDEN, FaultKind.UNAUTHORIZED])
async def test_a_closed_account_is_asked_once(kind: FaultKind) -> None:
    """A spent quota and a refused key hold the provider: the next call is deferred without being made."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=kind, times=None))
        for _ in range(3):
            with pytest.raises(Defer) as deferred:
                await simulated.model.complete(CALL)
            assert deferred.value.until > time.time() + 30
        assert len(simulated.server.journal.calls) == 1


async def test_the_key_never_shows() -> None:
    """A provider that repeats the key it refuses does not bring it into our reasons."""

    async def refuse(request: web.Request) -> web.Response:
        told = request.headers["authorization"]
        return web.json_response({"error": {"message": f"Incorrect API key provided: {told} {KEY}"}}, status=401)

    app = web.Application()
    app.router.add_post("/chat/completions", refuse)
    async with (
        listening(app, 0, "refuser") as port,
        open_chat_model(f"http://{HOST}:{port}", KEY, 1, time.time) as model,
    ):
        with pytest.raises(Defer) as deferred:
            await model.complete(CALL)
    assert "Incorrect API key provided" in deferred.value.reason
    assert KEY not in deferred.value.reason


async def test_a_call_ends_with_its_time() -> None:
    """A provider that takes longer than the call may is left."""
    async with opened() as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.SLOW, seconds=30.0))
        with pytest.raises(Retry) as failed:
            await simulated.model.complete(replace(CALL, timeout=0.2))
    assert failed.value.code == "call_timeout"


async def test_nobody_there_is_retried() -> None:
    """A connection that is refused is one attempt."""
    async with listening(web.Application(), 0, "nobody") as port:
        address = f"http://{HOST}:{port}"
    async with open_chat_model(address, KEY, 1, time.time) as model:
        with pytest.raises(Retry) as failed:
            await model.complete(CALL)
    assert failed.value.code == "no_connection"


async def test_real_calls_are_measured() -> None:
    """Calls that reach the provider are counted; those that an open circuit defers are not."""
    registry = CollectorRegistry()
    async with (
        simulator(SimulatorConfig(api_key="another")) as server,
        open_chat_model(server.base_url, KEY, 1, time.time, ModelMetrics(registry)) as model,
    ):
        for _ in range(3):
            with pytest.raises(Defer):
                await model.complete(CALL)
    counted = registry.get_sample_value("pipeline_model_calls_total", {"model": CALL.model, "outcome": "defer"})
    assert counted == 1


async def test_redirects_are_not_followed() -> None:
    """The key and the prompt go where they were sent to, and nowhere else."""

    async def elsewhere(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/v2/chat/completions")

    app = web.Application()
    app.router.add_post("/chat/completions", elsewhere)
    async with listening(app, 0, "mover") as port, open_chat_model(f"http://{HOST}:{port}", KEY, 1, time.time) as model:
        with pytest.raises(Reject) as refused:
            await model.complete(CALL)
    assert refused.value.code == "http_307"


async def test_the_cap_holds_on_the_wire() -> None:
    """Of many calls at once no more are in flight at the provider than were allowed, and none fails."""
    async with opened(concurrency=5) as simulated:
        simulated.server.faults.add(Fault(kind=FaultKind.SLOW, seconds=0.01, times=None))
        calls = (simulated.model.complete(replace(CALL, request_id=str(number))) for number in range(40))
        answers = await asyncio.gather(*calls)
        most = max(event.in_flight for event in simulated.server.journal.events)
    assert (len(answers), most) == (40, 5)


async def test_the_environment_cannot_come_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is set for the outside is not asked for a server on this machine."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:9")
    monkeypatch.setenv("ALL_PROXY", f"http://{HOST}:9")
    async with opened() as simulated:
        assert (await simulated.model.complete(CALL)).text


def test_a_schema_becomes_the_response_format() -> None:
    """A type's output schema is handed to the provider; without one nothing is said."""
    body = request_body(replace(CALL, json_schema={"type": "object"}))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}},
    }
    assert "response_format" not in request_body(CALL)
    assert request_body(CALL)["max_completion_tokens"] == CALL.max_output_tokens


@pytest.mark.parametrize("key", ["", "  ", "sk-\nx"])
async def test_a_key_that_is_none_names_its_variable(key: str) -> None:
    """An empty key, or one with a line end from a file, stops the start; the key itself is not told."""
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY") as wrong:
        async with open_chat_model("http://127.0.0.1:1/v1", key, 1, time.time):
            pass
    assert "sk-" not in str(wrong.value)

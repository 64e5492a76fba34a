"""The simulator: an OpenAI-compatible HTTP server on the loopback address that answers from the prompt.

It checks requests, counts tokens, limits rates and fails on demand as a provider does, so that the pipeline's client
code meets here what it will meet outside. Nothing in it knows the pipeline.

Besides `/v1/chat/completions`, `/v1/embeddings` and `/v1/models` it serves, as JSON lines, `GET /journal`,
`/journal/events`, `/journal/embeddings` (calls) and `/journal/texts` (which texts were embedded how often), then
`POST /journal/reset`, and `GET`, `POST` (one fault or a list) and `DELETE /faults`.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.simulator_chat import Chat, unauthorized
from pipeline.devkit.simulator_config import Latency, SimulatorClock, SimulatorConfig
from pipeline.devkit.simulator_embeddings import Embeddings
from pipeline.devkit.simulator_faults import Fault, FaultKind, FaultPlan, RetryAfterForm
from pipeline.devkit.simulator_journal import Call, CallEvent, Journal, overlapping_keys, share_of_time
from pipeline.devkit.simulator_texts import Texts
from pipeline.devkit.simulator_wire import model_list

__all__ = [
    "Call",
    "CallEvent",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "Journal",
    "Latency",
    "RetryAfterForm",
    "Simulator",
    "SimulatorClock",
    "SimulatorConfig",
    "overlapping_keys",
    "share_of_time",
    "simulator",
]

_MAX_BODY_BYTES = 16 * 1024 * 1024
_FAULTS: TypeAdapter[Fault | list[Fault]] = TypeAdapter(Fault | list[Fault])


class Simulator:
    """A running simulator: its address for clients (`base_url`, ends with `/v1`), its journal and its faults.

    `journal` is of chat calls; those that embed are in `embeddings`, and what they embedded is in `texts`.
    """

    def __init__(self, config: SimulatorConfig, clock: SimulatorClock) -> None:
        self.base_url = ""
        self.journal = Journal(config.journal_capacity)
        self.embeddings = Journal(config.journal_capacity)
        self.texts = Texts(config.journal_capacity)
        self.faults = FaultPlan()
        self._config = config
        self._clock = clock

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", Chat(self._config, self._clock, self.journal, self.faults).handle)
        embeddings = Embeddings(self._config, self._clock, self.embeddings, self.texts, self.faults)
        app.router.add_post("/v1/embeddings", embeddings.handle)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/journal", self._calls)
        app.router.add_get("/journal/events", self._events)
        app.router.add_get("/journal/embeddings", self._embedded)
        app.router.add_get("/journal/texts", self._texts)
        app.router.add_post("/journal/reset", self._reset)
        app.router.add_get("/faults", self._list_faults)
        app.router.add_post("/faults", self._add_faults)
        app.router.add_delete("/faults", self._clear_faults)
        return app

    async def _models(self, http: web.Request) -> web.Response:
        refused = unauthorized(http.headers.get("authorization"), self._config.api_key)
        if refused:
            return web.json_response(refused.body(), status=refused.status)
        known = self._config.models or tuple(dict.fromkeys(call.model for call in self.journal.calls if call.model))
        return web.json_response(model_list(known or ("simulator",), int(self._clock.wall().timestamp())))

    async def _calls(self, _http: web.Request) -> web.Response:
        return _json_lines(call.record() for call in self.journal.calls)

    async def _events(self, _http: web.Request) -> web.Response:
        return _json_lines(asdict(event) for event in self.journal.events)

    async def _embedded(self, _http: web.Request) -> web.Response:
        return _json_lines(call.record() for call in self.embeddings.calls)

    async def _texts(self, _http: web.Request) -> web.Response:
        return _json_lines(self.texts.rows())

    async def _reset(self, _http: web.Request) -> web.Response:
        self.journal.reset()
        self.embeddings.reset()
        self.texts.reset()
        return web.Response(status=204)

    async def _list_faults(self, _http: web.Request) -> web.Response:
        states = self.faults.states
        shown = [state.fault.model_dump(mode="json") | {"seen": state.seen, "struck": state.struck} for state in states]
        return web.json_response(shown)

    async def _add_faults(self, http: web.Request) -> web.Response:
        try:
            wanted = _FAULTS.validate_json(await http.read())
        except ValidationError as error:
            return web.json_response({"error": {"message": f"Not a fault: {error}"}}, status=400)
        self.faults.add(*([wanted] if isinstance(wanted, Fault) else wanted))
        return await self._list_faults(http)

    async def _clear_faults(self, _http: web.Request) -> web.Response:
        self.faults.clear()
        return web.Response(status=204)


@asynccontextmanager
async def simulator(
    config: SimulatorConfig | None = None, clock: SimulatorClock | None = None
) -> AsyncIterator[Simulator]:
    """Run a simulator on 127.0.0.1 for as long as the block runs; raises `PortInUse` for a fixed port that is taken."""
    settings = config or SimulatorConfig()
    running = Simulator(settings, clock or SimulatorClock())
    async with listening(running.application(), settings.port, "simulator") as port:
        running.base_url = f"http://{HOST}:{port}/v1"
        yield running


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> web.Response:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return web.Response(text=text, content_type="application/x-ndjson")

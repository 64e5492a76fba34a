"""One chat completion call at the simulator: admitted or refused, struck by a fault or answered, and journaled."""

import math
from dataclasses import dataclass
from uuid import uuid4

from aiohttp import web

from pipeline.devkit.simulator_config import SimulatorClock, SimulatorConfig
from pipeline.devkit.simulator_faults import Fault, FaultPlan, error_of
from pipeline.devkit.simulator_journal import Asked, Journal, RunningCall
from pipeline.devkit.simulator_rates import Rates
from pipeline.devkit.simulator_reply import make_reply, provider_headers, send_body, send_stream, stream_events
from pipeline.devkit.simulator_request import ChatRequest, RequestRefused, input_hash, parse_request
from pipeline.devkit.simulator_wire import ApiError, Completion, Usage


@dataclass(frozen=True, slots=True)
class _Ending:
    """What the journal notes at the end of a call."""

    status: int
    outcome: str
    usage: Usage = Usage()


# As much of a question as the journal keeps.
_QUESTION_CHARACTERS = 200
# The status that proxies log for a caller who left before the answer.
_ABANDONED = _Ending(499, "abandoned")


class Chat:
    """The chat endpoint with what it counts: the journal, the faults and the rates."""

    def __init__(self, config: SimulatorConfig, clock: SimulatorClock, journal: Journal, faults: FaultPlan) -> None:
        self._config = config
        self._clock = clock
        self._journal = journal
        self._faults = faults
        self._rates = Rates.full(config.requests_per_minute, config.tokens_per_minute, clock.monotonic())

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/chat/completions`."""
        parsed = _parsed(await http.read())
        running = self._journal.start(self._clock.monotonic(), _asked(http, parsed))
        ending = _ABANDONED
        try:
            response, ending = await self._answer(http, parsed, running)
            return response
        finally:
            # Also when the caller has gone: the handler is cancelled then, and the call ends as abandoned.
            self._journal.finish(self._clock.monotonic(), running, ending.status, ending.outcome, ending.usage)

    async def _answer(
        self, http: web.Request, parsed: ChatRequest | ApiError, running: RunningCall
    ) -> tuple[web.StreamResponse, _Ending]:
        request = self._admitted(http, parsed, running)
        if isinstance(request, ApiError):
            return self._refuse(request, running, request.code or f"http_{request.status}")
        fault = self._faults.strike(request.prompt.question)
        error = error_of(fault, self._clock.wall()) if fault else None
        await self._wait((fault.seconds if fault else 0.0) + (0.0 if error else self._first_byte(running)))
        if fault and error:
            return self._refuse(error, running, fault.kind.value)
        return await self._complete(http, request, fault, running)

    async def _complete(
        self, http: web.Request, request: ChatRequest, fault: Fault | None, running: RunningCall
    ) -> tuple[web.StreamResponse, _Ending]:
        blank = Completion(f"chatcmpl-{uuid4().hex[:29]}", int(self._clock.wall().timestamp()), request.model)
        reply = make_reply(request, blank, fault.kind if fault else None, self._config.sentences)
        ending = _Ending(200, reply.outcome, reply.usage)
        per_token = self._config.latency.per_token
        if request.stream and reply.can_stream:
            events = stream_events(reply, request.include_usage, lambda: self._wait(per_token))
            return await send_stream(http, events, self._headers(running)), ending
        await self._wait(per_token * reply.usage.completion_tokens)
        return await send_body(http, reply, self._headers(running)), ending

    def _admitted(
        self, http: web.Request, parsed: ChatRequest | ApiError, running: RunningCall
    ) -> ChatRequest | ApiError:
        refused = unauthorized(http.headers.get("authorization"), self._config.api_key)
        if refused or isinstance(parsed, ApiError):
            return refused or parsed
        return _unservable(parsed, self._config) or self._over_limit(parsed, running) or parsed

    def _over_limit(self, request: ChatRequest, running: RunningCall) -> ApiError | None:
        if self._config.capacity is not None and running.in_flight > self._config.capacity:
            return slow_down("requests", f"More than {self._config.capacity} calls at once.", 1.0)
        wanted = request.prompt_tokens + (request.limit or 0)
        self._rates, wait = self._rates.take(wanted, self._clock.monotonic())
        return slow_down("tokens", "The rate limit of this minute is reached.", wait) if wait else None

    def _refuse(self, error: ApiError, running: RunningCall, outcome: str) -> tuple[web.StreamResponse, _Ending]:
        headers = {**self._headers(running), **error.headers}
        return web.json_response(error.body(), status=error.status, headers=headers), _Ending(error.status, outcome)

    def _headers(self, running: RunningCall) -> dict[str, str]:
        return provider_headers(self._clock.monotonic() - running.started, self._rates)

    def _first_byte(self, running: RunningCall) -> float:
        return self._config.latency.first(running.index)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.sleep(seconds)


def unauthorized(authorization: str | None, api_key: str | None) -> ApiError | None:
    """Check the `Authorization` header against the key; None when it is right or no key is asked for."""
    if api_key is None or authorization == f"Bearer {api_key}":
        return None
    return ApiError(401, "invalid_request_error", "invalid_api_key", "The API key is missing or wrong.")


def unknown_model(model: str, config: SimulatorConfig) -> ApiError | None:
    """Check a model's name; None when it is known or any is."""
    if not config.models or model in config.models:
        return None
    message = f"The model '{model}' does not exist or may not be used."
    return ApiError(404, "invalid_request_error", "model_not_found", message, "model")


def _parsed(raw: bytes) -> ChatRequest | ApiError:
    try:
        return parse_request(raw)
    except RequestRefused as refused:
        return refused.error


def _asked(http: web.Request, parsed: ChatRequest | ApiError) -> Asked:
    named = http.headers.get("x-client-request-id", "")
    if isinstance(parsed, ApiError):
        return Asked(key=named)
    return Asked(
        model=parsed.model,
        key=named or parsed.user or parsed.metadata.get("key", ""),
        user=parsed.user,
        input_hash=input_hash(parsed.model, parsed.messages),
        stream=parsed.stream,
        question=parsed.prompt.question[:_QUESTION_CHARACTERS],
    )


def _unservable(request: ChatRequest, config: SimulatorConfig) -> ApiError | None:
    if unknown := unknown_model(request.model, config):
        return unknown
    wanted = request.prompt_tokens + (request.limit or 0)
    if wanted > config.context_tokens:
        message = f"The model's context is {config.context_tokens} tokens; messages and answer ask for {wanted}."
        return ApiError(400, "invalid_request_error", "context_length_exceeded", message, "messages")
    return None


def slow_down(kind: str, message: str, wait: float) -> ApiError:
    """Make the refusal of a call that came too soon, by `wait` seconds."""
    headers = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
    return ApiError(429, kind, "rate_limit_exceeded", f"{message} Try again in {wait:.3g} s.", headers=headers)

"""One embeddings call at the simulator: admitted or refused, struck by a fault or answered, and journaled.

Source of the shapes and limits: the OpenAI API reference, "Embeddings".
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import pack
from typing import Any

from aiohttp import web

from pipeline.devkit.simulator_answer import tokens
from pipeline.devkit.simulator_chat import slow_down, unauthorized, unknown_model
from pipeline.devkit.simulator_config import SimulatorClock, SimulatorConfig
from pipeline.devkit.simulator_faults import FaultKind, FaultPlan, error_of
from pipeline.devkit.simulator_journal import Asked, Journal, RunningCall
from pipeline.devkit.simulator_rates import Rates
from pipeline.devkit.simulator_reply import provider_headers, send_json
from pipeline.devkit.simulator_request import RequestRefused, read_object, refused, required
from pipeline.devkit.simulator_texts import Texts
from pipeline.devkit.simulator_vectors import DIMENSIONS, vector
from pipeline.devkit.simulator_wire import ApiError, Usage

MOST_TEXTS = 2_048
MOST_TOKENS = 300_000
"""The most texts, and tokens of all texts together, of one request."""
_MOST_DIMENSIONS = 3_072
_SHOWN = 200  # characters of the first text that the journal keeps
_PARAMETERS = frozenset({"dimensions", "encoding_format", "input", "model", "user"})


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request; `encoded` asks for base64 instead of numbers."""

    model: str
    texts: tuple[str, ...]
    dimensions: int
    encoded: bool

    @property
    def tokens(self) -> int:
        """Estimated tokens of all texts."""
        return sum(map(tokens, self.texts))


class Embeddings:
    """The embeddings endpoint with what it counts: the journal, the texts, the faults and the rates."""

    def __init__(
        self, config: SimulatorConfig, clock: SimulatorClock, journal: Journal, texts: Texts, faults: FaultPlan
    ) -> None:
        self._config = config
        self._clock = clock
        self._journal = journal
        self._texts = texts
        self._faults = faults
        self._rates = Rates.full(config.requests_per_minute, config.tokens_per_minute, clock.monotonic())

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/embeddings`."""
        parsed = _parsed(await http.read())
        running = self._journal.start(self._clock.monotonic(), _asked(http, parsed))
        ending: tuple[int, str, Usage] = (499, "abandoned", Usage())
        try:
            response, outcome, usage = await self._answer(http, parsed, running)
            ending = (response.status, outcome, usage)
            return response
        finally:
            self._journal.finish(self._clock.monotonic(), running, *ending)

    async def _answer(
        self, http: web.Request, parsed: EmbeddingRequest | ApiError, running: RunningCall
    ) -> tuple[web.StreamResponse, str, Usage]:
        request = self._admitted(http, parsed, running)
        if isinstance(request, ApiError):
            return self._refuse(request, running), request.code or f"http_{request.status}", Usage()
        fault = self._faults.strike("\n".join(request.texts), "embeddings")
        error = error_of(fault, self._clock.wall()) if fault else None
        await self._wait((fault.seconds if fault else 0.0) + self._config.latency.first(running.index))
        if fault and error:
            return self._refuse(error, running), fault.kind.value, Usage()
        self._texts.note(request.texts)
        kind = fault.kind if fault else None
        response = await send_json(http, answer_body(request, kind), kind, self._headers(running))
        return response, kind.value if kind else "ok", Usage(request.tokens)

    def _admitted(
        self, http: web.Request, parsed: EmbeddingRequest | ApiError, running: RunningCall
    ) -> EmbeddingRequest | ApiError:
        error = unauthorized(http.headers.get("authorization"), self._config.api_key)
        if error or isinstance(parsed, ApiError):
            return error or parsed
        return (
            unknown_model(parsed.model, self._config)
            or too_long(parsed, self._config)
            or self._over_limit(parsed, running)
            or parsed
        )

    def _over_limit(self, request: EmbeddingRequest, running: RunningCall) -> ApiError | None:
        if self._config.capacity is not None and running.in_flight > self._config.capacity:
            return slow_down("requests", f"More than {self._config.capacity} calls at once.", 1.0)
        self._rates, wait = self._rates.take(request.tokens, self._clock.monotonic())
        return slow_down("tokens", "The rate limit of this minute is reached.", wait) if wait else None

    def _refuse(self, error: ApiError, running: RunningCall) -> web.StreamResponse:
        headers = {**self._headers(running), **error.headers}
        return web.json_response(error.body(), status=error.status, headers=headers)

    def _headers(self, running: RunningCall) -> dict[str, str]:
        return provider_headers(self._clock.monotonic() - running.started, self._rates)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.sleep(seconds)


def parse_embedding_request(raw: bytes) -> EmbeddingRequest:
    """Check a request body; raises `RequestRefused` with the parameter at fault."""
    body = read_object(raw)
    unknown = sorted(set(body) - _PARAMETERS)
    if unknown:
        raise refused("unknown_parameter", f"Unrecognized request argument: {unknown[0]}.", unknown[0])
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise refused("invalid_value", "'encoding_format' is float or base64.", "encoding_format")
    return EmbeddingRequest(str(required(body, "model")), _inputs(body), _dimensions(body), encoding == "base64")


def answer_body(request: EmbeddingRequest, fault: FaultKind | None = None) -> dict[str, Any]:
    """Write the body of a right answer, or of one that a fault has made wrong."""
    vectors = [vector(text, request.dimensions) for text in request.texts]
    match fault:
        case FaultKind.FEWER_VECTORS:
            vectors = vectors[:-1]
        case FaultKind.MORE_VECTORS:
            vectors = [*vectors, vectors[-1]]
        case FaultKind.NOT_FINITE:
            vectors[-1] = (float("nan"), *vectors[-1][1:])
        case FaultKind.WRONG_LENGTH:
            vectors = [one[: len(one) // 2] for one in vectors]
        case FaultKind.EMPTY_VECTORS:
            vectors = [() for _ in vectors]
    data = [_item(place, one, encoded=request.encoded) for place, one in enumerate(vectors)]
    if fault is FaultKind.DISORDERED:
        data.reverse()
    body: dict[str, Any] = {"object": "list", "data": data, "model": request.model}
    if fault is not FaultKind.NO_USAGE:
        body["usage"] = {"prompt_tokens": request.tokens, "total_tokens": request.tokens}
    return body


def _item(place: int, one: Sequence[float], *, encoded: bool) -> Mapping[str, Any]:
    told: Any = base64.b64encode(pack(f"<{len(one)}f", *one)).decode() if encoded else list(one)
    return {"object": "embedding", "index": place, "embedding": told}


def _parsed(raw: bytes) -> EmbeddingRequest | ApiError:
    try:
        return parse_embedding_request(raw)
    except RequestRefused as error:
        return error.error


def _inputs(body: Mapping[str, Any]) -> tuple[str, ...]:
    given = required(body, "input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise refused("invalid_type", "'input' must be a text or an array of texts.", "input")
    if len(texts) > MOST_TEXTS:
        raise refused("array_above_max_length", f"'input' holds more than {MOST_TEXTS} texts.", "input")
    if not all(texts):
        raise refused("invalid_value", "'input' must not hold an empty text.", "input")
    return tuple(texts)


def _dimensions(body: Mapping[str, Any]) -> int:
    wanted = body.get("dimensions")
    if wanted is None:
        return DIMENSIONS
    if type(wanted) is not int or not 1 <= wanted <= _MOST_DIMENSIONS:
        raise refused("invalid_value", f"'dimensions' must be from 1 to {_MOST_DIMENSIONS}.", "dimensions")
    return wanted


def too_long(request: EmbeddingRequest, config: SimulatorConfig) -> ApiError | None:
    """Check what a request holds against the limits of a text and of all; None where it may pass."""
    longest = max(map(tokens, request.texts))
    if longest > config.text_tokens:
        message = f"The model takes texts of {config.text_tokens} tokens; one has {longest}."
        return ApiError(400, "invalid_request_error", "context_length_exceeded", message, "input")
    if request.tokens > MOST_TOKENS:
        message = f"A request takes {MOST_TOKENS} tokens; this one has {request.tokens}."
        return ApiError(400, "invalid_request_error", "max_tokens_per_request", message, "input")
    return None


def _asked(http: web.Request, parsed: EmbeddingRequest | ApiError) -> Asked:
    named = http.headers.get("x-client-request-id", "")
    if isinstance(parsed, ApiError):
        return Asked(key=named)
    told = sha256(json.dumps([parsed.model, parsed.texts]).encode()).hexdigest()
    return Asked(model=parsed.model, key=named, input_hash=told, question=parsed.texts[0][:_SHOWN])

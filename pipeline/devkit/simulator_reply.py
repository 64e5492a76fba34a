"""What the simulator answers to an admitted request, with or without a fault, and how it gets onto the connection."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from aiohttp import web

from pipeline.devkit.simulator_answer import tokens, write_answer
from pipeline.devkit.simulator_faults import FaultKind
from pipeline.devkit.simulator_rates import Rates
from pipeline.devkit.simulator_request import ChatRequest
from pipeline.devkit.simulator_wire import SSE_DONE, Completion, Usage, sse

_REFUSAL = "I cannot help with that."
_NOT_JSON = b'{"id": "chatcmpl-'
_HTML = b"<html><body>The gateway has no answer.</body></html>"
_WRONG_SHAPE = {"object": "chat.completion", "result": "done"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with status 200. `usage` is what was really produced, whatever the answer says of it."""

    completion: Completion
    usage: Usage
    fault: FaultKind | None = None

    @property
    def outcome(self) -> str:
        """What the journal calls it: the fault, or `ok` or `length`."""
        if self.fault:
            return self.fault.value
        return "length" if self.completion.finish == "length" else "ok"

    @property
    def can_stream(self) -> bool:
        """Whether it can be sent as events; a proxy's page cannot."""
        return self.fault is not FaultKind.HTML


def make_reply(request: ChatRequest, blank: Completion, fault: FaultKind | None, most: int) -> Reply:
    """Answer a request with up to `most` sentences, written into `blank`, which gives id, time and model.

    `fault` is one that answers 200, or None.
    """
    text, cut = write_answer(request.prompt, limit=request.limit, as_object=request.as_object, most=most)
    usage = Usage(request.prompt_tokens, tokens(text))
    whole = replace(blank, content=text, finish="length" if cut else "stop", usage=usage)
    return _distorted(whole, usage, fault)


def _distorted(whole: Completion, usage: Usage, fault: FaultKind | None) -> Reply:
    asked = Usage(usage.prompt_tokens)
    match fault:
        case FaultKind.REFUSAL:
            spent = replace(asked, completion_tokens=tokens(_REFUSAL))
            return Reply(replace(whole, content=None, refusal=_REFUSAL, finish="stop", usage=spent), spent, fault)
        case FaultKind.CONTENT_FILTER:
            return Reply(replace(whole, content="", finish="content_filter", usage=asked), asked, fault)
        case FaultKind.EMPTY:
            return Reply(replace(whole, content="", finish="stop", usage=asked), asked, fault)
        case FaultKind.NO_USAGE:
            return Reply(replace(whole, usage=None), usage, fault)
        case _:
            return Reply(whole, usage, fault)


def provider_headers(taken: float, rates: Rates) -> dict[str, str]:
    """The headers of every answer: a request id, the time it took (seconds), and the state of the rate limits."""
    return {
        "x-request-id": f"req_{uuid4().hex}",
        "openai-processing-ms": str(round(taken * 1000)),
        **rates.headers(),
    }


async def send_body(http: web.Request, reply: Reply, headers: Mapping[str, str]) -> web.StreamResponse:
    """Send a reply as one body."""
    return await send_json(http, reply.completion.body(), reply.fault, headers)


async def send_json(
    http: web.Request, body: Mapping[str, Any], fault: FaultKind | None, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a body, or what a fault makes of it on its way."""
    match fault:
        case FaultKind.HTML:
            return web.Response(body=_HTML, content_type="text/html", headers=headers)
        case FaultKind.NOT_JSON:
            return web.Response(body=_NOT_JSON, content_type="application/json", headers=headers)
        case FaultKind.WRONG_SHAPE:
            return web.json_response(_WRONG_SHAPE, headers=headers)
        case FaultKind.CUT:
            return await _send_half(http, json.dumps(body).encode(), headers)
        case _:
            return web.json_response(body, headers=headers)


async def send_stream(
    http: web.Request, events: AsyncIterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send server-sent events as they come; one that is empty cuts the connection."""
    response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream", "cache-control": "no-cache"})
    await response.prepare(http)
    async for event in events:
        if not event:
            return _cut(http, response)
        await response.write(event)
    await response.write_eof()
    return response


async def stream_events(
    reply: Reply, include_usage: bool, pause: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """The events of a streamed reply, with a pause before each; an empty one stands for the end of the connection."""
    for event in _events(reply, include_usage):
        await pause()
        yield event
    yield b"" if reply.fault is FaultKind.CUT else SSE_DONE


def _events(reply: Reply, include_usage: bool) -> list[bytes]:
    events = [sse(chunk) for chunk in reply.completion.chunks(include_usage=include_usage)]
    match reply.fault:
        case FaultKind.NOT_JSON:
            return [events[0], b"data: " + _NOT_JSON + b"\n\n"]
        case FaultKind.WRONG_SHAPE:
            return [sse(_WRONG_SHAPE)]
        case FaultKind.CUT:
            return events[: len(events) // 2 + 1]
        case _:
            return events


async def _send_half(http: web.Request, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(http)
    await response.write(body[: len(body) // 2])
    return _cut(http, response)


def _cut(http: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if http.transport is not None:
        http.transport.close()
    return response

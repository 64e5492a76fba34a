"""The answers of the Chat Completions API without I/O: completions, chunks and errors in their real shape.

Source of the shapes: the OpenAI API reference, "Chat Completions" and "Error codes".
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.devkit.simulator_answer import CHARACTERS_PER_TOKEN

Finish = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error answer: HTTP status, the four fields of the error object, and extra headers."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class Usage:
    """Estimated tokens of one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def body(self) -> dict[str, Any]:
        """The `usage` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer, before it is written as one body or as a stream. `usage` None is left out of both."""

    id: str
    created: int
    model: str
    content: str | None = None
    finish: Finish = "stop"
    usage: Usage | None = None
    refusal: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.content,
            "refusal": self.refusal,
            "annotations": [],
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        usage = {"usage": self.usage.body()} if self.usage else {}
        return self._envelope("chat.completion") | {"choices": [choice]} | usage

    def chunks(self, *, include_usage: bool) -> Iterator[dict[str, Any]]:
        """The chunks of a stream: the role, the text a token at a time, the finish reason, and the usage if asked for.

        When the usage is asked for, every chunk before it carries `usage: null`.
        """
        known = include_usage and self.usage is not None
        for delta, finish in self._deltas():
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield self._chunk([choice]) | ({"usage": None} if known else {})
        if known and self.usage is not None:
            yield self._chunk([]) | {"usage": self.usage.body()}

    def _deltas(self) -> Iterator[tuple[dict[str, Any], Finish | None]]:
        name, text = ("content", self.content or "") if self.refusal is None else ("refusal", self.refusal)
        yield {"role": "assistant", "content": "" if self.refusal is None else None, "refusal": None}, None
        for start in range(0, len(text), CHARACTERS_PER_TOKEN):
            yield {name: text[start : start + CHARACTERS_PER_TOKEN]}, None
        yield {}, self.finish

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._envelope("chat.completion.chunk") | {"choices": choices}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        }


def model_list(models: tuple[str, ...], created: int) -> dict[str, Any]:
    """The body of `GET /v1/models`."""
    data = [{"id": model, "object": "model", "created": created, "owned_by": "simulator"} for model in models]
    return {"object": "list", "data": data}


def sse(data: object) -> bytes:
    """One server-sent event with JSON data."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


SSE_DONE = b"data: [DONE]\n\n"

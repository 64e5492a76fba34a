"""A chat completion, read with distrust: what must be there is checked, what is often missing is made up for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.clients.llm_failures import unreadable
from pipeline.core.limits import estimate_tokens
from pipeline.core.ports import ChatAnswer, ChatCall


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    id: str | None = None
    model: str | None = None
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Any = None


def read_answer(body: bytes, headers: Mapping[str, str], call: ChatCall, latency: float) -> ChatAnswer:
    """Return the answer that the body of a 200 holds. Raises Retry where it holds none.

    Missing usage is estimated; a missing model or request id is not worth a second call.
    """
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise unreadable(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}") from None
    choice = reply.choices[0]
    text = choice.message.content or ""
    asked, answered = _count(reply.usage, "prompt_tokens"), _count(reply.usage, "completion_tokens")
    return ChatAnswer(
        text=text,
        refusal=choice.message.refusal or None,
        finish_reason=choice.finish_reason or "unknown",
        model=reply.model or call.model,
        request_id=headers.get("x-request-id") or reply.id or "",
        prompt_tokens=estimate_tokens(call.system + call.user) if asked is None else asked,
        completion_tokens=estimate_tokens(text) if answered is None else answered,
        usage_estimated=asked is None or answered is None,
        latency=latency,
    )


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 2**31 else None

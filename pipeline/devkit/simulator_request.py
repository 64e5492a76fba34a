"""A chat request as the real API checks it: unknown or missing parameters, wrong types and values are a 400. Pure."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.devkit.simulator_answer import tokens
from pipeline.devkit.simulator_prompt import Prompt, parse_prompt
from pipeline.devkit.simulator_wire import ApiError

_INVALID = "invalid_request_error"
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_PARAMETERS = frozenset(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages"
    " metadata modalities model n parallel_tool_calls prediction presence_penalty prompt_cache_key"
    " prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream"
    " stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options".split()
)
# What the format of a conversation itself costs, in tokens.
_TOKENS_PER_MESSAGE = 3


class RequestRefused(Exception):
    """A request that the API does not take; `error` is the answer to send."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `limit` is the output limit in tokens; `as_object` asks for a JSON object; `prompt` is what
    the last user message holds."""

    model: str
    messages: tuple[tuple[str, str], ...]
    limit: int | None
    stream: bool
    include_usage: bool
    as_object: bool
    user: str
    metadata: Mapping[str, str]
    prompt: Prompt

    @property
    def prompt_tokens(self) -> int:
        """Estimated tokens of all messages."""
        return _TOKENS_PER_MESSAGE + sum(_TOKENS_PER_MESSAGE + tokens(text) for _, text in self.messages)


def parse_request(raw: bytes) -> ChatRequest:
    """Check a request body; raises `RequestRefused` with the parameter at fault."""
    body = read_object(raw)
    unknown = sorted(set(body) - _PARAMETERS)
    if unknown:
        raise refused("unknown_parameter", f"Unrecognized request argument: {unknown[0]}.", unknown[0])
    for name, check, expected in _CHECKS:
        if body.get(name) is not None and not check(body[name]):
            raise refused("invalid_type", f"Invalid value for '{name}': expected {expected}.", name)
    messages = _messages(body)
    return ChatRequest(
        model=required(body, "model"),
        messages=messages,
        limit=_limit(body),
        stream=bool(body.get("stream")),
        include_usage=_include_usage(body),
        as_object=_as_object(body, messages),
        user=body.get("user") or "",
        metadata=body.get("metadata") or {},
        prompt=_prompt(messages),
    )


def input_hash(model: str, messages: tuple[tuple[str, str], ...]) -> str:
    """SHA-256 of the model and the messages: equal for two calls that ask the same of the same model."""
    return hashlib.sha256(json.dumps([model, messages]).encode()).hexdigest()


def read_object(raw: bytes) -> dict[str, Any]:
    """Read a request body; raises `RequestRefused` where it is no JSON object."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise refused(None, "The body of the request is not JSON.") from None
    if not isinstance(body, dict):
        raise refused("invalid_type", "The body of the request must be a JSON object.")
    return body


def required(body: Mapping[str, Any], name: str, where: str = "") -> Any:
    """Look a parameter up; raises `RequestRefused` where it is missing or empty."""
    if not body.get(name):
        raise refused("missing_required_parameter", f"Missing required parameter: '{where}{name}'.", where + name)
    return body[name]


def _messages(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(_message(message, place) for place, message in enumerate(required(body, "messages")))


def _prompt(messages: tuple[tuple[str, str], ...]) -> Prompt:
    asked = [text for role, text in messages if role == "user"]
    return parse_prompt(asked[-1] if asked else "")


def _message(message: object, place: int) -> tuple[str, str]:
    where = f"messages[{place}]"
    if not isinstance(message, dict):
        raise refused("invalid_type", f"Invalid type for '{where}': expected an object.", where)
    role = required(message, "role", f"{where}.")
    if role not in _ROLES:
        raise refused("invalid_value", f"Invalid value for '{where}.role': expected one of {_ROLES}.", f"{where}.role")
    return role, _content(message.get("content"), role, f"{where}.content")


def _content(content: object, role: str, where: str) -> str:
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if isinstance(content, list) and all(map(_is_text_part, content)):
        return "\n".join(part["text"] for part in content)
    raise refused("invalid_type", f"Invalid type for '{where}': expected a text or an array of text parts.", where)


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _limit(body: Mapping[str, Any]) -> int | None:
    named = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    if len(named) > 1:
        raise refused("invalid_parameter_combination", f"{named[0]} and {named[1]} exclude each other.", named[1])
    if named and body[named[0]] < 1:
        raise refused("integer_below_min_value", f"Invalid '{named[0]}': expected at least 1.", named[0])
    return body[named[0]] if named else None


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is not None and not body.get("stream"):
        raise refused(None, "'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return bool(options and options.get("include_usage"))


def _as_object(body: Mapping[str, Any], messages: tuple[tuple[str, str], ...]) -> bool:
    wanted = body.get("response_format") or {"type": "text"}
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        where = "response_format.type"
        raise refused("invalid_value", f"Invalid value for '{where}': {kind!r}.", where)
    if kind == "json_schema" and not _is_named_schema(wanted.get("json_schema")):
        where = "response_format.json_schema"
        raise refused("missing_required_parameter", f"'{where}' needs a name and a schema.", where)
    if kind == "json_object" and not any("json" in text.casefold() for _, text in messages):
        raise refused(None, "With 'json_object' the messages must contain the word json.", "messages")
    return bool(kind != "text")


def _is_named_schema(schema: object) -> bool:
    return isinstance(schema, dict) and isinstance(schema.get("name"), str) and isinstance(schema.get("schema"), dict)


def refused(code: str | None, message: str, param: str | None = None) -> RequestRefused:
    """Make the refusal of a request that is malformed."""
    return RequestRefused(ApiError(400, _INVALID, code, message, param))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_one(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 1


def _is_within(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_CHECKS: tuple[tuple[str, Callable[[object], bool], str], ...] = (
    ("model", _is(str), "a string"),
    ("messages", _is(list), "an array"),
    ("max_tokens", _is_integer, "an integer"),
    ("max_completion_tokens", _is_integer, "an integer"),
    ("n", _is_one, "1, as this server gives one answer a call"),
    ("seed", _is_integer, "an integer"),
    ("temperature", _is_within(0, 2), "a number from 0 to 2"),
    ("top_p", _is_within(0, 1), "a number from 0 to 1"),
    ("frequency_penalty", _is_within(-2, 2), "a number from -2 to 2"),
    ("presence_penalty", _is_within(-2, 2), "a number from -2 to 2"),
    ("stream", _is(bool), "a boolean"),
    ("stream_options", _is(dict), "an object"),
    ("response_format", _is(dict), "an object"),
    ("user", _is(str), "a string"),
    ("metadata", _is_metadata, "an object of strings"),
)

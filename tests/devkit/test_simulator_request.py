"""What the API takes and what it refuses."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.devkit.simulator_prompt import Prompt
from pipeline.devkit.simulator_request import ChatRequest, RequestRefused, input_hash, parse_request
from pipeline.devkit.simulator_wire import ApiError
from tests.examples import at_most

_ASK = {"role": "user", "content": "Why?"}
_BODY: dict[str, Any] = {"model": "m", "messages": [_ASK]}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}


def _request(**more: Any) -> ChatRequest:
    return parse_request(json.dumps(_BODY | more).encode())


def _refused(raw: bytes) -> ApiError:
    with pytest.raises(RequestRefused) as caught:
        parse_request(raw)
    return caught.value.error


def test_a_smallest_request_is_taken() -> None:
    """A model and a message are enough."""
    assert _request() == ChatRequest("m", (("user", "Why?"),), None, False, False, False, "", {}, Prompt("Why?"))


def test_a_full_request_is_taken() -> None:
    """Limit, stream, usage, format, user and metadata are read; parameters that change nothing here are allowed."""
    request = _request(
        max_completion_tokens=9,
        stream=True,
        stream_options={"include_usage": True},
        response_format=_SCHEMA,
        user="u",
        metadata={"key": "k"},
        temperature=0.5,
        n=1,
        seed=3,
        tools=[],
    )
    assert request == ChatRequest("m", (("user", "Why?"),), 9, True, True, True, "u", {"key": "k"}, Prompt("Why?"))


def test_the_question_is_in_the_last_user_message() -> None:
    """Earlier turns, the system message and an answer that is begun do not count; parts of text are joined."""
    parts = [{"type": "text", "text": "<question>Two"}, {"type": "text", "text": "lines?</question>"}]
    turns = [{"role": "system", "content": "s"}, _ASK, {"role": "assistant"}, {"role": "user", "content": parts}]
    assert _request(messages=turns).prompt == Prompt("Two\nlines?")
    assert _request(messages=turns[:1]).prompt == Prompt("")


def test_prompt_tokens_count_all_messages() -> None:
    """Four characters a token, three tokens for each message and three for the answer's start."""
    assert _request(messages=[{"role": "system", "content": "12345"}, _ASK]).prompt_tokens == 3 + (3 + 2) + (3 + 1)


def test_the_input_hash_tells_inputs_apart() -> None:
    """Equal for an equal model and equal messages; different when a border between messages moves."""
    one, other = (("user", "ab"), ("user", "c")), (("user", "a"), ("user", "bc"))
    assert input_hash("m", one) == input_hash("m", one)
    assert len({input_hash("m", one), input_hash("m", other), input_hash("n", one)}) == 3


@pytest.mark.parametrize(
    "change, param, code",
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"messages": "hello"}, "messages", "invalid_type"),
        ({"messages": ["hello"]}, "messages[0]", "invalid_type"),
        ({"messages": [_ASK, {"content": "x"}]}, "messages[1].role", "missing_required_parameter"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "invalid_type"),
        ({"max_tokens": "9"}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_parameter_combination"),
        ({"n": 2}, "n", "invalid_type"),
        ({"temperature": 2.5}, "temperature", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "messages", None),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"max_token": 3}, "max_token", "unknown_parameter"),
    ],
)
def test_a_wrong_parameter_is_named(change: dict[str, Any], param: str, code: str | None) -> None:
    """A request that is missing something, or has a wrong type or value, is a 400 with the parameter at fault."""
    error = _refused(json.dumps(_BODY | change).encode())
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", param, code)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"3"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    """A body must be a JSON object."""
    assert _refused(raw).status == 400


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=at_most(40))
@given(
    st.dictionaries(
        st.sampled_from(["messages", "max_tokens", "stream", "stream_options", "response_format", "metadata", "user"]),
        _JSON,
    )
)
def test_any_body_is_taken_or_refused(change: dict[str, Any]) -> None:
    """No JSON makes the check fail in another way than by refusing."""
    with contextlib.suppress(RequestRefused):
        _request(**change)

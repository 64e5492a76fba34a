"""Tests of pipeline/clients/llm_answer.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.llm_answer import read_answer
from pipeline.core.errors import Retry
from pipeline.core.ports import ChatAnswer
from tests.contracts.chat_model_contract import CALL


def body(message: dict[str, Any] | None = None, finish: str | None = "stop", **more: Any) -> bytes:
    """Spell a completion."""
    choice = {"index": 0, "message": message or {"role": "assistant", "content": "Nine."}, "finish_reason": finish}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024", "choices": [choice]}
    return json.dumps({**whole, "usage": {"prompt_tokens": 31, "completion_tokens": 2}, **more}).encode()


def test_a_completion_is_read() -> None:
    """Text, the model that answered, its request id and its usage."""
    assert read_answer(body(), {"x-request-id": "req_1"}, CALL, 1.5) == ChatAnswer(
        text="Nine.",
        refusal=None,
        finish_reason="stop",
        model="gpt-4o-mini-2024",
        request_id="req_1",
        prompt_tokens=31,
        completion_tokens=2,
        usage_estimated=False,
        latency=1.5,
    )


def test_what_small_servers_leave_out_is_made_up_for() -> None:
    """Without model, request id header and finish reason there still is an answer."""
    answer = read_answer(body(finish=None, model=None), {}, CALL, 0.0)
    assert (answer.model, answer.request_id, answer.finish_reason) == ("gpt-4o-mini", "chatcmpl-1", "unknown")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": "31", "completion_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 31, "completion_tokens": True},
        {"prompt_tokens": 2**40, "completion_tokens": 2},
    ],
)
def test_usage_that_cannot_be_is_estimated(usage: object) -> None:
    """Absent, malformed and impossible counts are replaced by ours and marked."""
    answer = read_answer(body(usage=usage), {}, CALL, 0.0)
    assert answer.usage_estimated
    assert 0 < answer.prompt_tokens < 1_000
    assert answer.completion_tokens == 2


def test_a_refusal_is_kept_apart() -> None:
    """`refusal` is not text; an empty one is none."""
    refused = read_answer(body({"content": None, "refusal": "No."}), {}, CALL, 0.0)
    plain = read_answer(body({"content": "Yes.", "refusal": ""}), {}, CALL, 0.0)
    assert (refused.text, refused.refusal, plain.text, plain.refusal) == ("", "No.", "Yes.", None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b'{"id": "chatcmpl-',
        b"null",
        b"[]",
        b'{"object": "chat.completion", "result": "done"}',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
    ],
)
def test_anything_else_is_unreadable(raw: bytes) -> None:
    """A proxy's page, half an answer and another shape may be an answer next time."""
    with pytest.raises(Retry) as refused:
        read_answer(raw, {}, CALL, 0.0)
    assert refused.value.code == "unreadable_answer"
    assert len(refused.value.reason) < 300


JUNK: list[object] = [None, True, 7, "x", [], {}, [None], [{}], [{"message": None}], [{"message": {"content": []}}]]


@given(
    st.one_of(
        st.binary(max_size=50),
        st.dictionaries(st.sampled_from(["choices", "model"]), st.sampled_from(JUNK)).map(json.dumps),
    )
)
def test_no_body_breaks_the_reader(raw: bytes | str) -> None:
    """Whatever arrives that is no completion is a Retry, never another exception."""
    with pytest.raises(Retry):
        read_answer(raw.encode() if isinstance(raw, str) else raw, {}, CALL, 0.0)

"""The values that ports exchange."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.core.index_ports import Chunk
from pipeline.core.ports import ChatAnswer, ChatCall, NotCommitted, RecordTooLarge, WebhookMessage

CALL = ChatCall("model", "system", "user", 100, 0.0, "id", 30.0)
ANSWER = ChatAnswer("text", None, "stop", "model", "id", 1, 2, usage_estimated=False, latency=0.5)
MESSAGE = WebhookMessage("main", "id", b"{}")


@pytest.mark.parametrize("value", [CALL, ANSWER, MESSAGE, Chunk(0, "text")])
def test_what_ports_exchange_is_immutable(value: ChatCall | ChatAnswer | WebhookMessage | Chunk) -> None:
    """No port can change under the hands of the other side what it was given."""
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


def test_answers_are_equal_whatever_time_they_took() -> None:
    """The same answer is the same answer when it comes slower; one more token makes another."""
    assert dataclasses.replace(ANSWER, latency=9.0) == ANSWER
    assert dataclasses.replace(ANSWER, completion_tokens=3) != ANSWER


def test_what_is_not_said_is_plain_text() -> None:
    """A call asks for no schema, and a webhook goes to its endpoint's own address, unless said."""
    assert (None, None) == (CALL.json_schema, MESSAGE.url)


def test_a_record_that_is_too_large_is_no_verdict() -> None:
    """The producer hands it on as an error of the write; what it means for a record is the runtime's to say."""
    assert (Exception,) == RecordTooLarge.__bases__


def test_a_batch_that_did_not_take_place_names_what_was_refused() -> None:
    """By index, and nothing unless said: then it may be tried again as it is."""
    error = RecordTooLarge("large")
    assert ({}, {1: error}) == (NotCommitted("fenced").refused, NotCommitted("refused", {1: error}).refused)

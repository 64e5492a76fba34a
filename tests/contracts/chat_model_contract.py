"""What every ChatModel promises; run on the fake and on the real client against the simulator."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Literal, Protocol

import pytest

from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.ports import ChatCall, ChatModel

Trouble = Literal["rate_limit", "server_error", "malformed", "refusal", "empty", "filtered", "no_usage"]

WAIT = 12.0
"""Seconds that a provider in trouble `rate_limit` asks for."""

CALL = ChatCall(
    model="gpt-4o-mini",
    system="Answer from the passages.",
    user='<passages>\n<passage n="1" document="d" chunk="0" version="1">\nThe shop opens at nine.\n</passage>\n'
    "</passages>\n<question>\nWhen does the shop open?\n</question>",
    max_output_tokens=100,
    temperature=0.0,
    request_id="11111111-2222-5333-8444-555555555555",
    timeout=30.0,
)


class Provider(Protocol):
    """A model under test, and the provider behind it."""

    @property
    def model(self) -> ChatModel:
        """The model under test."""
        ...

    def trouble(self, kind: Trouble) -> None:
        """Make the next call end like this."""
        ...

    def now(self) -> float:
        """The time that the model knows."""
        ...


class ChatModelContract(ABC):
    """Subclass it, say how to open one, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Provider]:
        """Open a model that is not in trouble."""

    async def test_it_answers_with_usage(self) -> None:
        """An answer has text, the model's name, a request id and the tokens that the provider counted."""
        async with self.opened() as provider:
            answer = await provider.model.complete(CALL)
        assert "The shop opens at nine." in answer.text
        assert (answer.model, answer.finish_reason, answer.refusal) == ("gpt-4o-mini", "stop", None)
        assert answer.request_id
        assert answer.prompt_tokens > 0
        assert answer.completion_tokens > 0
        assert not answer.usage_estimated

    async def test_the_same_call_may_be_made_again(self) -> None:
        """A call has no state: asked twice, the model answers twice."""
        async with self.opened() as provider:
            first, second = await asyncio.gather(provider.model.complete(CALL), provider.model.complete(CALL))
        assert first.text == second.text

    async def test_a_rate_limit_defers_until_the_provider_said(self) -> None:
        """A 429 is not an attempt but a deferral, until the time that Retry-After names."""
        async with self.opened() as provider:
            provider.trouble("rate_limit")
            with pytest.raises(Defer) as deferred:
                await provider.model.complete(CALL)
            assert deferred.value.until == pytest.approx(provider.now() + WAIT, abs=5.0)
            assert (await provider.model.complete(replace(CALL, request_id="another"))).text

    async def test_a_server_error_is_retried(self) -> None:
        """A 500 may work next time; the model does not try by itself."""
        async with self.opened() as provider:
            provider.trouble("server_error")
            with pytest.raises(Retry):
                await provider.model.complete(CALL)
            assert (await provider.model.complete(CALL)).text

    async def test_a_malformed_request_is_rejected(self) -> None:
        """What the provider calls malformed is our fault, and no retry mends it."""
        async with self.opened() as provider:
            provider.trouble("malformed")
            with pytest.raises(Reject):
                await provider.model.complete(CALL)

    async def test_a_refusal_is_an_answer(self) -> None:
        """A model that refuses has answered: the refusal is told apart from text."""
        async with self.opened() as provider:
            provider.trouble("refusal")
            answer = await provider.model.complete(CALL)
        assert (answer.text, bool(answer.refusal)) == ("", True)

    async def test_a_filtered_answer_says_so(self) -> None:
        """A filter's stop is a finish reason."""
        async with self.opened() as provider:
            provider.trouble("filtered")
            answer = await provider.model.complete(CALL)
        assert (answer.text, answer.finish_reason) == ("", "content_filter")

    async def test_an_empty_answer_is_an_answer(self) -> None:
        """An answer without text comes back as it is; what it is worth is for the caller to say."""
        async with self.opened() as provider:
            provider.trouble("empty")
            answer = await provider.model.complete(CALL)
        assert (answer.text, answer.refusal, answer.finish_reason) == ("", None, "stop")

    async def test_missing_usage_is_estimated(self) -> None:
        """A provider that sends no usage is tolerated; the counts are marked as ours."""
        async with self.opened() as provider:
            provider.trouble("no_usage")
            answer = await provider.model.complete(CALL)
        assert answer.usage_estimated
        assert answer.prompt_tokens > 0
        assert answer.completion_tokens > 0

"""What every Embedder promises; run on the fake and on the real client against the simulator."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import pytest

from pipeline.core.errors import Defer, Reject, Retry
from pipeline.core.index_ports import Embedder

Trouble = Literal["rate_limit", "server_error", "refused", "bad_answer"]

WAIT = 12.0
"""Seconds that a provider in trouble `rate_limit` asks for."""
QUESTION = "How long does the shop keep a parcel?"
NEAR = "Parcels are kept in the shop for seven days."
FAR = "Bees dance to tell each other where flowers are."


class Vectors(Protocol):
    """An embedder under test, and the provider behind it."""

    @property
    def embedder(self) -> Embedder:
        """The embedder under test."""
        ...

    def trouble(self, kind: Trouble) -> None:
        """Make the next request end like this."""
        ...

    def now(self) -> float:
        """The time that the embedder knows."""
        ...


class EmbedderContract(ABC):
    """Subclass it, say how to open one, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Vectors]:
        """Open an embedder that is not in trouble."""

    async def test_each_text_gets_its_vector(self) -> None:
        """Vectors come in the order of the texts, all of one length, and cost tokens; the same text has the same."""
        async with self.opened() as provider:
            both = await provider.embedder.embed([NEAR, FAR, NEAR])
            (far,) = (await provider.embedder.embed([FAR])).vectors
        assert [len(far)] * 3 == [len(vector) for vector in both.vectors]
        assert near(both.vectors[0], both.vectors[2]) == pytest.approx(1.0)
        assert near(both.vectors[1], far) == pytest.approx(1.0)
        assert both.tokens > 0
        assert provider.embedder.model

    async def test_what_is_about_the_same_is_near(self) -> None:
        """A question is nearer to a passage that answers it than to another."""
        async with self.opened() as provider:
            question, one, other = (await provider.embedder.embed([QUESTION, NEAR, FAR])).vectors
        assert near(question, one) > near(question, other) + 0.1

    async def test_nothing_costs_nothing(self) -> None:
        """No texts, no vectors, and nobody is asked."""
        async with self.opened() as provider:
            provider.trouble("server_error")
            nothing = await provider.embedder.embed([])
            with pytest.raises(Retry):
                await provider.embedder.embed([NEAR])
        assert (list(nothing.vectors), nothing.tokens) == ([], 0)

    async def test_concurrent_calls_each_get_their_own(self) -> None:
        """However calls are gathered, each caller is answered for its texts, which may be those of others as well."""
        async with self.opened() as provider:
            texts = [[f"Locker {number}.", f"Tower {number // 2}."] for number in range(20)]
            answers = await asyncio.gather(*map(provider.embedder.embed, texts))
            alone = await provider.embedder.embed(texts[7])
        for vector, same in zip(answers[7].vectors, alone.vectors, strict=True):
            assert near(vector, same) == pytest.approx(1.0)

    async def test_a_rate_limit_defers_until_the_provider_said(self) -> None:
        """A 429 is not an attempt but a deferral, until the time that Retry-After names."""
        async with self.opened() as provider:
            provider.trouble("rate_limit")
            with pytest.raises(Defer) as deferred:
                await provider.embedder.embed([NEAR])
            assert deferred.value.until == pytest.approx(provider.now() + WAIT, abs=5.0)
            assert (await provider.embedder.embed([NEAR])).vectors

    @pytest.mark.parametrize("kind", ["server_error", "bad_answer"])
    async def test_what_may_work_next_time_is_retried(self, kind: Trouble) -> None:
        """A 500, or vectors that are not what was asked for; the embedder does not try again by itself."""
        async with self.opened() as provider:
            provider.trouble(kind)
            with pytest.raises(Retry):
                await provider.embedder.embed([NEAR])
            assert (await provider.embedder.embed([NEAR])).vectors

    async def test_a_text_that_is_refused_is_rejected(self) -> None:
        """What the provider refuses no retry mends; the reason does not tell the text."""
        async with self.opened() as provider:
            provider.trouble("refused")
            with pytest.raises(Reject) as refused:
                await provider.embedder.embed([NEAR])
        assert "seven days" not in refused.value.reason

    @pytest.mark.parametrize("text", ["", " \n\t"])
    async def test_an_empty_text_is_rejected(self, text: str) -> None:
        """There is nothing in it to be about; others are embedded all the same."""
        async with self.opened() as provider:
            fine, wrong = await asyncio.gather(
                provider.embedder.embed([NEAR]), provider.embedder.embed([FAR, text]), return_exceptions=True
            )
        assert not isinstance(fine, BaseException)
        assert isinstance(wrong, Reject)


def near(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)

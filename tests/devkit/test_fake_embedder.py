"""The fake embedder keeps the same promises as what it stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.core.errors import Defer, Outcome, Reject, Retry
from pipeline.devkit.fakes import FakeEmbedder
from tests.contracts.embedder_contract import WAIT, EmbedderContract, Trouble, Vectors

NOW = 1_800_000_000.0


class _Vectors:
    def __init__(self) -> None:
        self.embedder = FakeEmbedder()

    def trouble(self, kind: Trouble) -> None:
        raised: dict[Trouble, Outcome] = {
            "rate_limit": Defer("slow down", until=NOW + WAIT),
            "server_error": Retry("500"),
            "bad_answer": Retry("NaN"),
            "refused": Reject("400"),
        }
        self.embedder.troubles.append(raised[kind])

    def now(self) -> float:
        return NOW


class TestFakeEmbedder(EmbedderContract):
    """The fake embedder keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Vectors]:
        yield _Vectors()


async def test_it_remembers_what_it_was_asked() -> None:
    """Texts that were embedded are counted, those of a call in trouble are not."""
    fake = FakeEmbedder(dimensions=8)
    fake.troubles.append(Retry("500"))
    for texts in (["a"], ["a", "b"], []):
        try:
            await fake.embed(texts)
        except Retry:
            assert fake.texts == []
    assert fake.texts == ["a", "b"]

"""The fakes keep the same promises as what they stand for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline.core.errors import Defer, Fail, Outcome, Reject, Retry
from pipeline.core.index_ports import PassageSearch, Search
from pipeline.devkit.fakes import FakeFreshness, FakeIndex, FakeModel, FakeWebhooks, plain_answer
from tests.contracts import chat_model_contract as chat
from tests.contracts import webhook_sender_contract as hooks
from tests.contracts.chat_model_contract import CALL, ChatModelContract
from tests.contracts.passage_index_contract import Index, PassageIndexContract
from tests.contracts.passage_search_contract import Held, PassageSearchContract
from tests.contracts.webhook_sender_contract import WebhookSenderContract

NOW = 1_800_000_000.0


class _Provider:
    def __init__(self) -> None:
        self.model = FakeModel()

    def trouble(self, kind: chat.Trouble) -> None:
        raised: dict[str, Outcome] = {
            "rate_limit": Defer("slow down", until=NOW + chat.WAIT),
            "server_error": Retry("500"),
            "malformed": Reject("400"),
        }
        good = plain_answer(CALL, "The shop opens at nine.")
        empty = replace(good, text="")
        given = {
            "refusal": replace(empty, refusal="I cannot help with that."),
            "filtered": replace(empty, finish_reason="content_filter"),
            "empty": empty,
            "no_usage": replace(good, usage_estimated=True),
        }
        if kind in raised:
            self.model.troubles.append(raised[kind])
        else:
            self.model.answers.append(given[kind])

    def now(self) -> float:
        return NOW


class TestFakeModel(ChatModelContract):
    """The fake model keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[chat.Provider]:
        yield _Provider()


class TestFakeIndex(PassageIndexContract):
    """The fake index keeps both ports' contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Index]:
        yield FakeIndex()


class TestFakeSearch(PassageSearchContract):
    """The fake index keeps the contract of who searches."""

    @asynccontextmanager
    async def holding(self, documents: Held) -> AsyncIterator[PassageSearch]:
        index = FakeIndex()
        for document, chunks in documents:
            await index.replace(document, chunks)
        yield index


class _Endpoint:
    def __init__(self) -> None:
        self.sender = FakeWebhooks()

    def trouble(self, kind: hooks.Trouble) -> None:
        raised: dict[str, Outcome] = {
            "busy": Defer("busy", until=NOW + hooks.WAIT),
            "gone": Fail("gone", code="gone"),
        }
        self.sender.troubles.append(raised.get(kind, Retry(kind)))

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return [(message.id, message.body) for message in self.sender.posted]

    def now(self) -> float:
        return NOW


class TestFakeWebhooks(WebhookSenderContract):
    """The fake sender keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[hooks.Endpoint]:
        yield _Endpoint()


async def test_an_index_in_trouble_says_so_once() -> None:
    """A trouble that was put in is raised by the next call, and then is over."""
    index = FakeIndex()
    index.troubles.append(Defer("away", until=NOW))
    try:
        await index.search(Search("acme", "x", 1, {}))
    except Defer:
        assert list(await index.search(Search("acme", "x", 1, {}))) == []
    else:
        raise AssertionError("the trouble was not raised")


async def test_the_model_counts_calls_in_flight() -> None:
    """`most` is how many calls were answered at the same time."""
    model = FakeModel()
    await model.complete(CALL)
    assert (model.most, model.in_flight, len(model.calls)) == (1, 0, 1)


async def test_a_source_is_as_far_as_it_is_said_to_be() -> None:
    """Up to there the index has caught up; of other sources it has nothing."""
    freshness = FakeFreshness()
    freshness.versions["handbook"] = 7
    assert [await freshness.caught_up("handbook", version, "me") for version in (6, 7, 8)] == [True, True, False]
    assert not await freshness.caught_up("forum", 0, "me")

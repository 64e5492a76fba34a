"""What every WebhookSender promises; run on the fake and on the real client against the receiver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import pytest

from pipeline.core.errors import Defer, Fail, Retry
from pipeline.core.ports import WebhookMessage, WebhookSender

Trouble = Literal["busy", "error", "redirect", "gone", "refused"]

WAIT = 30.0
"""Seconds that an endpoint in trouble `busy` asks for."""

MESSAGE = WebhookMessage(
    "default", "11111111-2222-5333-8444-555555555555", '{"type": "job.completed", "data": "ä"}'.encode()
)


class Endpoint(Protocol):
    """A sender under test, and the endpoint `default` behind it."""

    @property
    def sender(self) -> WebhookSender:
        """The sender under test."""
        ...

    def trouble(self, kind: Trouble) -> None:
        """Make the next post end like this."""
        ...

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        """The id and body of each message that was accepted."""
        ...

    def now(self) -> float:
        """The time that the sender knows."""
        ...


class WebhookSenderContract(ABC):
    """Subclass it, say how to open one, and pytest runs it."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[Endpoint]:
        """Open a sender whose endpoint is not in trouble."""

    async def test_a_message_arrives_as_it_is(self) -> None:
        """The body is what was handed in, byte for byte, under its id; the answer's status comes back."""
        async with self.opened() as endpoint:
            answer = await endpoint.sender.post(MESSAGE)
            assert answer.refusal is None
            assert answer.status is not None
            assert 200 <= answer.status < 300
            assert list(endpoint.arrived()) == [(MESSAGE.id, MESSAGE.body)]

    async def test_a_repeat_keeps_its_id(self) -> None:
        """The same message posted again has the same id: a receiver can drop it."""
        async with self.opened() as endpoint:
            await endpoint.sender.post(MESSAGE)
            await endpoint.sender.post(MESSAGE)
            assert [name for name, _ in endpoint.arrived()] == [MESSAGE.id, MESSAGE.id]

    async def test_a_busy_endpoint_defers(self) -> None:
        """A 429 or 503 that names a time is a deferral until then."""
        async with self.opened() as endpoint:
            endpoint.trouble("busy")
            deferred = (await endpoint.sender.post(MESSAGE)).refusal
            assert isinstance(deferred, Defer)
            assert deferred.until == pytest.approx(endpoint.now() + WAIT, abs=5.0)

    @pytest.mark.parametrize("trouble", ["error", "redirect", "refused"])
    async def test_anything_but_success_is_retried(self, trouble: Trouble) -> None:
        """A 500, a redirect (which is not followed) and a 400 may all be mended at the other end."""
        async with self.opened() as endpoint:
            endpoint.trouble(trouble)
            assert isinstance((await endpoint.sender.post(MESSAGE)).refusal, Retry)
            assert list(endpoint.arrived()) == []
            assert (await endpoint.sender.post(MESSAGE)).refusal is None

    async def test_a_gone_endpoint_fails(self) -> None:
        """A 410 says that nobody will ever listen there again."""
        async with self.opened() as endpoint:
            endpoint.trouble("gone")
            failed = (await endpoint.sender.post(MESSAGE)).refusal
            assert isinstance(failed, Fail)
            assert failed.code == "gone"

    async def test_an_unknown_endpoint_fails(self) -> None:
        """A name that the sender does not know is no address."""
        async with self.opened() as endpoint:
            with pytest.raises(Fail) as failed:
                await endpoint.sender.post(WebhookMessage("nowhere", "id", b"{}"))
            assert failed.value.code == "no_endpoint"

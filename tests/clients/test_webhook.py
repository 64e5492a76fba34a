"""Tests of pipeline/clients/webhook.py, against the receiver on the loopback address."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.webhook import Address, addresses, open_webhooks, outcome_for
from pipeline.core.catalog import Endpoint
from pipeline.core.errors import ConfigurationError, Defer, Fail, Outcome, Retry
from pipeline.core.ports import WebhookMessage, WebhookSender
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.receiver import HookFailure, Receiver, ReceiverConfig, new_secret, receiver
from tests.contracts import webhook_sender_contract as hooks
from tests.contracts.webhook_sender_contract import MESSAGE, WebhookSenderContract

pytestmark = pytest.mark.local

NOW = 1_800_000_000.0
SECRET = new_secret()

ORDERS = {
    "busy": HookFailure(status=503, retry_after=str(int(hooks.WAIT))),
    "error": HookFailure(status=500),
    "redirect": HookFailure(status=307),
    "refused": HookFailure(status=400),
    "gone": HookFailure(status=410),
}


class Reached:
    """The client, with the receiver as its endpoint `default`."""

    def __init__(self, sender: WebhookSender, server: Receiver) -> None:
        self.sender = sender
        self.server = server

    def trouble(self, kind: hooks.Trouble) -> None:
        self.server.fail(ORDERS[kind])

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        # The receiver keeps parsed bodies; it verified the signature over the bytes.
        return [(d.webhook_id, json.dumps(d.body, ensure_ascii=False).encode()) for d in self.server.accepted]

    def now(self) -> float:
        return time.time()


@asynccontextmanager
async def opened(secret: str = SECRET, timeout: float = 20.0) -> AsyncIterator[Reached]:
    """Open the client on a receiver that knows `SECRET`."""
    async with receiver(ReceiverConfig(SECRET)) as server:
        endpoints = {"default": Address(server.url, secret, "WEBHOOK_URL", "WEBHOOK_SECRET", timeout)}
        async with open_webhooks(endpoints, allow_loopback=True, clock=time.time) as sender:
            yield Reached(sender, server)


class TestSignedWebhooks(WebhookSenderContract):
    """The real sender keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[hooks.Endpoint]:
        async with opened() as reached:
            yield reached


async def test_the_receiver_verifies_the_signature() -> None:
    """The three headers are right: id, the time of this attempt, and a signature over both and the body."""
    async with opened() as reached:
        await reached.sender.post(MESSAGE)
        (delivery,) = reached.server.received
    assert delivery.verified
    assert delivery.timestamp is not None
    assert abs(delivery.timestamp - delivery.received_at) < 60
    assert delivery.headers["content-type"] == "application/json"


async def test_both_keys_sign_while_they_are_changed() -> None:
    """With two secrets a receiver that knows either one accepts."""
    async with opened(f"{new_secret()} {SECRET}") as reached:
        assert (await reached.sender.post(MESSAGE)).status == 204


async def test_another_secret_is_refused_and_retried() -> None:
    """A receiver that cannot verify says 401, which a person mends."""
    async with opened(new_secret()) as reached:
        refused = (await reached.sender.post(MESSAGE)).refusal
    assert refused is not None
    assert refused.code == "webhook_401"


async def test_a_slow_endpoint_times_out() -> None:
    """An endpoint has its own time and no more."""
    async with opened(timeout=0.2) as reached:
        reached.server.fail(HookFailure(seconds=30.0))
        refused = (await reached.sender.post(WebhookMessage("default", "id", b"{}"))).refusal
    assert refused is not None
    assert refused.code == "webhook_timeout"


async def test_a_connection_that_breaks_is_retried() -> None:
    """Whether the endpoint heard it is unknown, so it hears it again, under the same id."""
    async with opened() as reached:
        reached.server.fail(HookFailure(cut=True))
        refused = (await reached.sender.post(MESSAGE)).refusal
        assert refused is not None
        assert refused.code == "webhook_unreachable"
        await reached.sender.post(MESSAGE)
        assert reached.server.duplicates() == (MESSAGE.id,)


async def test_an_endless_answer_is_not_read() -> None:
    """The status is the answer; a body without end neither delays nor fills the memory."""
    closed = asyncio.Event()

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        except (ConnectionError, asyncio.CancelledError):
            closed.set()
            raise

    app = web.Application()
    app.router.add_post("/", flood)
    async with listening(app, 0, "flood") as port:
        endpoints = {"default": Address(f"http://{HOST}:{port}/", SECRET)}
        async with open_webhooks(endpoints, allow_loopback=True, clock=time.time) as sender:
            assert (await sender.post(MESSAGE)).status == 202
            await asyncio.wait_for(closed.wait(), 20)


async def test_the_environment_cannot_come_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment is used: it would see every body."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:9")
    async with opened() as reached:
        assert (await reached.sender.post(MESSAGE)).status == 204


async def test_a_reason_does_not_tell_the_address() -> None:
    """A webhook's path is often its password."""
    async with listening(web.Application(), 0, "nobody") as port:
        address = f"http://{HOST}:{port}/hooks/hidden-in-the-path"
    async with open_webhooks({"default": Address(address, SECRET)}, allow_loopback=True, clock=time.time) as sender:
        refused = (await sender.post(MESSAGE)).refusal
    assert refused is not None
    assert "hidden" not in refused.reason


@pytest.mark.parametrize(
    "status,headers,expected",
    [
        (410, {}, Fail),
        (429, {"retry-after": "5"}, Defer),
        (503, {"retry-after": "Fri, 15 Jan 2027 08:00:05 GMT"}, Defer),
        (429, {}, Retry),
        (503, {"retry-after": "junk"}, Retry),
        (500, {"retry-after": "5"}, Retry),
        (301, {}, Retry),
        (404, {}, Retry),
    ],
)
def test_refusals_are_told_apart(status: int, headers: dict[str, str], expected: type[Outcome]) -> None:
    """Gone is for good, busy with a time is a deferral, everything else an attempt."""
    outcome = outcome_for("default", status, headers, NOW)
    assert type(outcome) is expected
    if isinstance(outcome, Defer):
        assert outcome.until == NOW + 5


@given(st.integers(100, 599), st.text(max_size=30))
def test_every_refusal_has_an_outcome(status: int, wait: str) -> None:
    """No status and no Retry-After is without an outcome."""
    assert isinstance(outcome_for("default", status, {"retry-after": wait}, NOW), Outcome)


@pytest.mark.parametrize(
    "url,problem",
    [
        ("http://example.com/hook", "must be https"),
        ("ftp://example.com/hook", "is no https address"),
        ("example.com/hook", "is no https address"),
        ("", "is no https address"),
        ("https://", "is no https address"),
        ("https://user:word@example.com/", "must not hold a user or password"),
        ("https://example.com:99999999/", "is no https address"),
        ("http://127.0.0.1:8080/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
        ("https://localhost/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
        ("http://[::1]/", "PIPELINE_ALLOW_LOOPBACK_WEBHOOKS"),
    ],
)
async def test_only_https_leaves_the_machine(url: str, problem: str) -> None:
    """An address that may not be used stops the start, with the endpoint's name and its variable."""
    with pytest.raises(ConfigurationError, match=problem) as wrong:
        async with open_webhooks({"crm": Address(url, SECRET, "CRM_URL")}, allow_loopback=False, clock=time.time):
            pass
    assert "'crm'" in str(wrong.value)
    assert "CRM_URL" in str(wrong.value)
    assert "word" not in str(wrong.value).replace("password", "")


@pytest.mark.parametrize(
    "secret",
    ["", "  ", "plain", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", SECRET[6:]],
    ids=["empty", "blank", "plain", "no key", "no base64", "short", "no prefix"],
)
async def test_a_secret_that_cannot_sign_stops_the_start(secret: str) -> None:
    """The endpoint and the variable are named, the secret is not."""
    endpoints = {"crm": Address("https://example.com/", secret, "CRM_URL", "CRM_SECRET")}
    with pytest.raises(ConfigurationError, match="'crm': CRM_SECRET") as wrong:
        async with open_webhooks(endpoints, allow_loopback=False, clock=time.time):
            pass
    assert not secret.strip() or secret == "whsec_" or secret not in str(wrong.value)


def test_addresses_come_from_the_catalog_and_the_environment() -> None:
    """A URL stands in the catalog or in a variable; the secret always in a variable."""
    endpoints = {
        "crm": Endpoint(url="https://example.com/crm", secret_env="CRM_SECRET"),
        "default": Endpoint(url_env="WEBHOOK_URL", secret_env="WEBHOOK_SECRET"),
    }
    values = {"CRM_SECRET": "s1", "WEBHOOK_URL": "https://example.com/all", "WEBHOOK_SECRET": "s2"}
    assert addresses(endpoints, values.get) == {
        "crm": Address("https://example.com/crm", "s1", "endpoints.crm.url", "CRM_SECRET"),
        "default": Address("https://example.com/all", "s2", "WEBHOOK_URL", "WEBHOOK_SECRET"),
    }
    assert "s1" not in repr(addresses(endpoints, values.get))


@pytest.mark.parametrize("missing", ["WEBHOOK_URL", "WEBHOOK_SECRET"])
def test_a_variable_that_is_not_set_is_named(missing: str) -> None:
    """The sentence says which endpoint needs which variable."""
    values = {"WEBHOOK_URL": "https://example.com/all", "WEBHOOK_SECRET": "s2"}
    del values[missing]
    with pytest.raises(ConfigurationError, match=f"'default' needs {missing}"):
        addresses({"default": Endpoint(url_env="WEBHOOK_URL", secret_env="WEBHOOK_SECRET")}, values.get)

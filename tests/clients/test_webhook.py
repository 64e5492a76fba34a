"""Tests of pipeline/clients/webhook.py, against the receiver on the loopback address."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from pipeline.clients import webhook_answer, webhook_gate, webhook_keys
from pipeline.clients.webhook import Address, SignedWebhooks, generate_secret, open_webhooks, public_key
from pipeline.clients.webhook_answer import MOST_BYTES
from pipeline.clients.webhook_gate import BURST_SECONDS, Limits
from pipeline.core.errors import Defer, Fail, Outcome
from pipeline.core.ports import WebhookAnswer, WebhookSender
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.receiver import HookFailure, Receiver, ReceiverConfig, new_secret, receiver
from tests.contracts import webhook_sender_contract as hooks
from tests.contracts.webhook_sender_contract import MESSAGE, WebhookSenderContract

pytestmark = pytest.mark.local

SECRET = new_secret()

ORDERS = {
    "busy": HookFailure(status=503, retry_after=str(int(hooks.WAIT))),
    "error": HookFailure(status=500),
    "redirect": HookFailure(status=307, location="http://169.254.169.254/latest/meta-data/"),
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


DEFAULT = Address("", SECRET, "WEBHOOK_URL", "WEBHOOK_SECRET")


@asynccontextmanager
async def opened(address: Address = DEFAULT, known: str = SECRET) -> AsyncIterator[Reached]:
    """Open the client on a receiver that knows `known`; the address lacks only its url."""
    async with (
        receiver(ReceiverConfig(known)) as server,
        sending(replace(address, url=server.url)) as sender,
    ):
        yield Reached(sender, server)


@asynccontextmanager
async def sending(address: Address) -> AsyncIterator[WebhookSender]:
    async with open_webhooks({"default": address}, allow_loopback=True, clock=time.time) as sender:
        yield sender


def code_of(answer: WebhookAnswer) -> str:
    assert answer.refusal is not None
    return answer.refusal.code


class TestSignedWebhooks(WebhookSenderContract):
    """The real sender keeps the port's contract."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[hooks.Endpoint]:
        async with opened() as reached:
            yield reached


# ------------------------------------------------------------------------------------------------ signatures
async def test_the_receiver_verifies_the_signature() -> None:
    """The three headers are right: id, the time of this attempt, and a signature over both and the body."""
    async with opened() as reached:
        await reached.sender.post(MESSAGE)
        (delivery,) = reached.server.received
    assert delivery.verified
    assert delivery.timestamp is not None
    assert abs(delivery.timestamp - delivery.received_at) < 60
    assert delivery.headers["content-type"] == "application/json"
    names = [name for name in delivery.headers if name.startswith("webhook-")]
    assert names == ["webhook-id", "webhook-timestamp", "webhook-signature"]


async def test_both_keys_sign_while_they_are_changed() -> None:
    """With several secrets, of either kind, a receiver that knows any one accepts."""
    private = generate_secret("v1a")
    for known in (SECRET, public_key(private) or ""):
        async with opened(replace(DEFAULT, secret=f"{new_secret()} {private} {SECRET}"), known) as reached:
            assert (await reached.sender.post(MESSAGE)).status == 204


async def test_another_secret_is_refused_and_retried() -> None:
    """A receiver that cannot verify says 401, which a person mends."""
    async with opened(known=new_secret()) as reached:
        assert code_of(await reached.sender.post(MESSAGE)) == "webhook_401"


async def test_a_secret_in_a_file_changes_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody needs to start anything again."""
    monkeypatch.setattr(webhook_keys, "LOOK_SECONDS", 0.0)
    file, other = tmp_path / "secret", new_secret()
    file.write_text(other, encoding="utf-8")
    async with opened(replace(DEFAULT, secret=other, secret_file=file)) as reached:
        assert (await reached.sender.post(MESSAGE)).status == 401
        file.write_text(f"{SECRET} {other}\n", encoding="utf-8")
        with capture_logs() as lines:
            assert (await reached.sender.post(MESSAGE)).status == 204
    assert [line["action"] for line in lines] == ["webhook_secret_changed"]


# ------------------------------------------------------------------------------------------------ bad receivers
async def test_a_slow_endpoint_times_out() -> None:
    """An endpoint has its own time and no more, whether it says nothing or a byte a second."""
    async with opened(replace(DEFAULT, timeout=0.2)) as reached:
        for order in (HookFailure(seconds=30.0), HookFailure(trick="drip")):
            reached.server.fail(order)
            answer = await reached.sender.post(MESSAGE)
            assert (answer.status, code_of(answer)) == (None, "webhook_timeout")


async def test_a_connection_that_breaks_is_retried() -> None:
    """Whether the endpoint heard it is unknown, so it hears it again, under the same id."""
    async with opened() as reached:
        reached.server.fail(HookFailure(cut=True))
        answer = await reached.sender.post(MESSAGE)
        assert (answer.status, code_of(answer)) == (None, "webhook_unreachable")
        await reached.sender.post(MESSAGE)
        assert reached.server.duplicates() == (MESSAGE.id,)


@pytest.mark.parametrize("trick,size", [("drip body", 1), ("early end", 1), ("endless", MOST_BYTES)])
async def test_the_status_line_is_the_answer(trick: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that drips, ends early or never ends changes nothing; it is read within bounds of bytes and time."""
    monkeypatch.setattr(webhook_answer, "BODY_SECONDS", 0.2 if trick == "drip body" else 20.0)
    async with opened() as reached:
        for order in (HookFailure(trick=trick), HookFailure(trick=trick, status=503)):  # type: ignore[arg-type]  # one of its tricks
            reached.server.fail(order)
            answer = await reached.sender.post(MESSAGE)
            assert answer.response_bytes == size
            assert answer.status == order.status or (answer.status, answer.refusal) == (200, None)
        assert (await reached.sender.post(MESSAGE)).status == 204


async def test_an_endless_answer_is_left() -> None:
    """The connection on which it came is closed, so that the endpoint stops, too."""
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

    async with serving(flood) as url, sending(replace(DEFAULT, url=url)) as sender:
        assert (await sender.post(MESSAGE)).status == 202
        await asyncio.wait_for(closed.wait(), 20)


async def test_an_endless_head_is_cut() -> None:
    """Headers without end are no answer; they are not gathered for as long as the endpoint likes."""

    async def flood(request: web.Request) -> web.Response:
        transport = request.transport
        assert transport is not None
        transport.write(b"HTTP/1.1 200 OK\r\n")
        while not transport.is_closing():
            transport.write(b"x-more: " + b"x" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        return web.Response()

    async with serving(flood) as url, sending(replace(DEFAULT, url=url)) as sender:
        answer = await sender.post(MESSAGE)
    assert (answer.status, code_of(answer)) == (None, "webhook_unreachable")


async def test_what_comes_back_is_not_unpacked() -> None:
    """A few packed bytes can be gigabytes; they are counted as they are, and so is junk that calls itself packed."""

    async def bomb(_: web.Request) -> web.Response:
        return web.Response(body=b"junk", headers={"content-encoding": "gzip"})

    async with serving(bomb) as url, sending(replace(DEFAULT, url=url)) as sender:
        assert await sender.post(MESSAGE) == WebhookAnswer(200, 4, None)


async def test_a_redirect_is_not_followed() -> None:
    """Not to a metadata address and not to a good one: only the endpoint's own answer counts."""
    async with opened() as reached:
        for location in ("http://169.254.169.254/latest/meta-data/", reached.server.url):
            reached.server.fail(HookFailure(status=302, location=location))
            assert code_of(await reached.sender.post(MESSAGE)) == "webhook_302"
        assert len(reached.server.received) == 2


async def test_the_environment_cannot_come_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment is used: it would see every body."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:9")
    async with opened() as reached:
        assert (await reached.sender.post(MESSAGE)).status == 204


async def test_a_reason_does_not_tell_the_address() -> None:
    """A webhook's path is often its password, and what it answers is nobody's business."""
    async with listening(web.Application(), 0, "nobody") as port:
        url = f"http://{HOST}:{port}/hooks/hidden-in-the-path"
        async with sending(replace(DEFAULT, url=url)) as sender:
            refusals: list[Outcome | None] = [(await sender.post(MESSAGE)).refusal]
    async with sending(replace(DEFAULT, url=url)) as sender:
        refusals.append((await sender.post(MESSAGE)).refusal)
    assert [refusal.code for refusal in refusals if refusal] == ["webhook_404", "webhook_unreachable"]
    assert not any(word in str(refusals) for word in ("hidden", "Not Found", SECRET, str(port)))


async def test_a_large_message_is_posted() -> None:
    """A body of megabytes is written bit by bit, with its length announced."""
    body = json.dumps({"data": "ä" * 2_000_000}, ensure_ascii=False).encode()
    async with opened() as reached:
        assert (await reached.sender.post(replace(MESSAGE, body=body))).status == 204
        assert reached.server.received[0].headers["content-length"] == str(len(body))


async def test_connections_are_used_again() -> None:
    """After an answer with a body, too: a new connection for each message would cost more than the message."""
    peers = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text="thank you")

    async with serving(answer) as url, sending(replace(DEFAULT, url=url)) as sender:
        assert [(await sender.post(MESSAGE)).response_bytes for _ in range(3)] == [9, 9, 9]
    assert len(peers) == 1


@asynccontextmanager
async def serving(handler: object) -> AsyncIterator[str]:
    """Serve one handler; yields its url."""
    app = web.Application()
    app.router.add_post("/", handler)  # type: ignore[arg-type]  # each is one
    async with listening(app, 0, "handler") as port:
        yield f"http://{HOST}:{port}/"


# ------------------------------------------------------------------------------------------------ limits
async def test_a_burst_goes_out_one_after_the_other() -> None:
    """A quick endpoint is never over its limit, and nothing is sent away: who finds no room stays for a moment."""
    async with opened(replace(DEFAULT, limits=Limits(concurrency=2))) as reached:
        posts = [reached.sender.post(replace(MESSAGE, id=f"id-{number}")) for number in range(50)]
        assert {answer.status for answer in await asyncio.gather(*posts)} == {204}
        assert len(reached.server.accepted) == 50


async def test_a_rate_is_kept_by_those_who_stay() -> None:
    """So many in a second, from the first on."""
    async with opened(replace(DEFAULT, limits=Limits(per_second=50))) as reached:
        began = time.monotonic()
        await asyncio.gather(*(reached.sender.post(replace(MESSAGE, id=f"id-{number}")) for number in range(20)))
        assert time.monotonic() - began > 19 / 50 - BURST_SECONDS - 0.001


async def test_one_too_many_is_deferred_to_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint has so many messages under way as it wants; the next is told when to come, without an attempt."""
    monkeypatch.setattr(webhook_gate, "PATIENCE_ALONE", 0.05)
    async with opened(replace(DEFAULT, limits=Limits(concurrency=1))) as reached:
        reached.server.fail(HookFailure(seconds=30.0, times=1))
        posting = asyncio.create_task(reached.sender.post(MESSAGE))
        await reached.server.wait_for(1, 20)
        with pytest.raises(Defer) as deferred:
            await reached.sender.post(replace(MESSAGE, id="another"))
        assert deferred.value.code == "endpoint_busy"
        assert time.time() < deferred.value.until < time.time() + 10
        posting.cancel()
        await asyncio.wait([posting])
        assert len(reached.server.received) == 1
        assert (await reached.sender.post(replace(MESSAGE, id="a third"))).status == 204


async def test_one_that_is_cancelled_passes_its_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that has become free is not lost with the one that was called to take it."""
    monkeypatch.setattr(webhook_gate, "PATIENCE_ALONE", 600.0)
    go, arrived = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        arrived.set()
        await go.wait()
        return web.Response()

    async with serving(answer) as url, sending(replace(DEFAULT, url=url, limits=Limits(concurrency=1))) as sender:
        assert isinstance(sender, SignedWebhooks)
        posting = [asyncio.create_task(sender.post(replace(MESSAGE, id=name))) for name in ("first", "second", "third")]
        await arrived.wait()
        call = sender._line.call

        def call_and_cancel(lane: str) -> None:
            monkeypatch.undo()
            call(lane)
            posting[1].cancel()

        monkeypatch.setattr(sender._line, "call", call_and_cancel)
        go.set()
        await asyncio.wait(posting)
        assert posting[1].cancelled()
        assert posting[2].result().status == 200


async def test_a_slow_endpoint_does_not_hold_up_another() -> None:
    """Nor does a slow host that a request brings hold up the endpoint whose name it goes by."""
    limits = Limits(concurrency=1)
    async with receiver(ReceiverConfig(SECRET)) as slow, receiver(ReceiverConfig(SECRET)) as good:
        slow.fail(HookFailure(seconds=30.0, times=None))
        endpoints = {
            "slow": Address(slow.url, SECRET, limits=limits),
            "good": Address(good.url, SECRET, limits=limits, hosts=frozenset({"localhost", HOST})),
        }
        async with open_webhooks(endpoints, allow_loopback=True, clock=time.time) as sender:
            brought = slow.url.replace(HOST, "localhost")
            messages = [replace(MESSAGE, endpoint="slow"), replace(MESSAGE, endpoint="good", url=brought)]
            posting = [asyncio.create_task(sender.post(message)) for message in messages]
            await slow.wait_for(1, 20)
            assert (await sender.post(replace(MESSAGE, endpoint="good"))).status == 204
            for task in posting:
                task.cancel()
            await asyncio.wait(posting)


# ------------------------------------------------------------------------------------------------ brought addresses
async def test_a_request_brings_an_address_on_the_list() -> None:
    """It is posted to as the endpoint would be, with the endpoint's secret; a host beside the list is not."""
    async with receiver(ReceiverConfig(SECRET)) as server:
        address = Address("https://hooks.example.com/", SECRET, hosts=frozenset({HOST}))
        async with sending(address) as sender:
            assert (await sender.post(replace(MESSAGE, url=server.hook_url("tenant")))).status == 204
            assert [one.hook for one in server.accepted] == ["tenant"]
            with pytest.raises(Fail, match="list of its tenant") as refused:
                await sender.post(replace(MESSAGE, url=server.url.replace(HOST, "localhost")))
    assert refused.value.code == "forbidden_address"
    assert "localhost" not in refused.value.reason

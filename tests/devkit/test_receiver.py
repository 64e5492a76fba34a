"""The webhook receiver, met by a sender that signs with the specification's own library."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.listen import PortInUse
from pipeline.devkit.receiver import HookFailure, Receiver, ReceiverConfig, new_secret, next_failure, receiver
from tests.examples import at_most

pytestmark = pytest.mark.local

_SECRET = new_secret()


@dataclass(frozen=True)
class _Sender:
    """Posts signed webhooks; what is wrong with a delivery is an argument."""

    http: aiohttp.ClientSession
    url: str

    async def send(
        self, name: str = "evt_1", body: str = '{"type":"job.completed"}', *, age: float = 0, secret: str = _SECRET
    ) -> int:
        """Post one delivery and return the status."""
        sent = datetime.now(UTC) - timedelta(seconds=age)
        signature = Webhook(secret).sign(name, sent, body)
        return await self.post(body, name, str(int(sent.timestamp())), signature)

    async def post(self, body: str | bytes, name: str, timestamp: str, signature: str) -> int:
        """Post with the three headers as they are given; an empty one is left out."""
        headers = {"webhook-id": name, "webhook-timestamp": timestamp, "webhook-signature": signature}
        kept = {key: value for key, value in headers.items() if value}
        async with self.http.post(self.url, data=body, headers=kept) as answer:
            return answer.status


@asynccontextmanager
async def _receiving() -> AsyncIterator[tuple[Receiver, _Sender]]:
    async with receiver(ReceiverConfig(_SECRET)) as running, aiohttp.ClientSession() as http:
        yield running, _Sender(http, running.url)


async def test_a_signed_delivery_is_accepted_and_remembered() -> None:
    """A right signature gets a 204; the delivery is kept with its body, headers and times."""
    before = datetime.now(UTC).timestamp()
    async with _receiving() as (running, sender):
        assert await sender.send("evt_1", '{"job": 7}') == 204
        [delivery] = running.received
    assert (delivery.webhook_id, delivery.body, delivery.hook) == ("evt_1", {"job": 7}, "default")
    assert (delivery.verified, delivery.accepted, delivery.status, delivery.problem) == (True, True, 204, "")
    assert delivery.headers["webhook-signature"].startswith("v1,")
    assert delivery.timestamp is not None
    assert int(before) <= delivery.timestamp <= delivery.received_at


async def test_a_wrong_signature_is_refused() -> None:
    """Another secret, and an old or a future timestamp, are a 401; they are kept, but not accepted."""
    async with _receiving() as (running, sender):
        assert await sender.send(secret=new_secret()) == 401
        assert await sender.send(age=301) == 401
        assert await sender.send(age=-302) == 401
        assert [(delivery.verified, delivery.accepted) for delivery in running.received] == [(False, False)] * 3
        assert running.accepted == ()
        assert all(delivery.problem for delivery in running.received)


async def test_one_right_signature_among_several_is_enough() -> None:
    """While a secret is rotated, a delivery carries several signatures."""
    now = datetime.now(UTC)
    signatures = [Webhook(secret).sign("evt_1", now, "{}") for secret in (new_secret(), _SECRET)]
    async with _receiving() as (_, sender):
        assert await sender.post("{}", "evt_1", str(int(now.timestamp())), " ".join(signatures)) == 204


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_a_missing_header_is_a_bad_request(missing: int) -> None:
    """Each of the three headers is needed, and the one that is missing is named."""
    headers = ["evt_1", "1800000000", "v1,AAAA"]
    headers[missing] = ""
    async with _receiving() as (running, sender):
        assert await sender.post("{}", *headers) == 400
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        assert running.received[0].problem == f"missing {names[missing]}"


@pytest.mark.parametrize("signature", ["v1", "v1,%%%", "junk", "v1,QQ==,x", "v2,AAAA"])
async def test_a_malformed_signature_is_refused(signature: str) -> None:
    """What is no signature at all is a 401, not a failure of the receiver."""
    async with _receiving() as (_, sender):
        assert await sender.post("{}", "evt_1", str(int(datetime.now(UTC).timestamp())), signature) == 401


async def test_malformed_timestamps_and_bodies_are_refused() -> None:
    """A bad timestamp and a body that is no text are a 401; signed text that is no JSON object is a 400."""
    now = str(int(datetime.now(UTC).timestamp()))
    async with _receiving() as (running, sender):
        assert await sender.post("{}", "evt_1", "today", "v1,AAAA") == 401
        assert await sender.post(b"\xff\xfe", "evt_1", now, "v1,AAAA") == 401
        assert await sender.send(body="{half") == 400
        assert await sender.post("{}", "evt_1", "nan", "v1,AAAA") == 401
        assert [(delivery.timestamp is None, delivery.body) for delivery in running.received] == [
            (True, {}),
            (False, None),
            (False, None),
            (True, {}),
        ]


async def test_duplicates_are_ids_accepted_twice() -> None:
    """Only an id that was accepted more than once is a duplicate; a refused try and its repeat are none."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(status=503))
        for name in ("evt_1", "evt_1", "evt_2", "evt_2", "evt_2", "evt_3"):
            await sender.send(name)
        assert running.duplicates() == ("evt_2",)
        assert [delivery.status for delivery in running.received] == [503, 204, 204, 204, 204, 204]


async def test_it_fails_as_it_was_told() -> None:
    """Orders are obeyed one after the other; a bad signature uses none up, and another hook's order waits."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(status=500, times=2), HookFailure(status=410, hook="other"))
        assert await sender.send(secret=new_secret()) == 401
        assert [await sender.send() for _ in range(3)] == [500, 500, 204]
        other = _Sender(sender.http, running.hook_url("other"))
        assert [await other.send() for _ in range(2)] == [410, 204]


async def test_a_failure_can_say_when_to_come_back() -> None:
    """The Retry-After of an order is sent as it is."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(status=429, retry_after="120"))
        now = datetime.now(UTC)
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(_SECRET).sign("evt_1", now, "{}"),
        }
        async with sender.http.post(running.url, data="{}", headers=headers) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "120")


async def test_healing_takes_orders_away() -> None:
    """An order without an end lasts until it is taken away."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(status=500, times=None))
        assert [await sender.send() for _ in range(3)] == [500] * 3
        running.heal()
        assert await sender.send() == 204


async def test_a_cut_connection_is_still_a_delivery() -> None:
    """The sender sees an error, the receiver has accepted; so the repeat is a duplicate."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(cut=True))
        with pytest.raises(aiohttp.ClientError):
            await sender.send()
        assert await sender.send() == 204
        assert running.duplicates() == ("evt_1",)
        assert [delivery.status for delivery in running.received] == [0, 204]


async def test_a_slow_delivery_counts_from_its_arrival() -> None:
    """A sender that gives up on a slow answer has still been heard."""
    async with _receiving() as (running, sender):
        running.fail(HookFailure(seconds=600))
        sending = asyncio.create_task(sender.send())
        assert [delivery.webhook_id for delivery in await running.wait_for(1, timeout=10)] == ["evt_1"]
        sending.cancel()


async def test_waiting_counts_different_ids() -> None:
    """`wait_for` ends when enough different ids were accepted, and says how many there were when time is up."""
    async with _receiving() as (running, sender):
        waiting = asyncio.create_task(running.wait_for(2, timeout=10))
        for name in ("evt_1", "evt_1", "evt_2"):
            await sender.send(name)
        assert len(await waiting) == 3
        with pytest.raises(TimeoutError, match=r"2 of 3 webhooks were accepted in 0\.01 s"):
            await running.wait_for(3, timeout=0.01)


async def test_other_processes_read_and_steer() -> None:
    """`/received` is JSON lines; `/failures` takes one order or several, refuses nonsense, and clears them."""
    async with _receiving() as (running, sender):
        url = f"{running.base_url}/failures"
        assert (await sender.http.post(url, json=[{"status": 500}, {"status": 502}])).status == 204
        assert (await sender.http.post(url, json={"status": 503})).status == 204
        assert (await sender.http.post(url, json={"status": 99})).status == 400
        assert [await sender.send(), await sender.send()] == [500, 502]
        assert (await sender.http.delete(url)).status == 204
        assert await sender.send() == 204
        async with sender.http.get(f"{running.base_url}/received") as answer:
            rows = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert [(row["webhook_id"], row["accepted"]) for row in rows] == [
        ("evt_1", False),
        ("evt_1", False),
        ("evt_1", True),
    ]


async def test_a_port_in_use_is_one_sentence() -> None:
    """A fixed port that is taken is an error that names the server and the port."""
    async with receiver(ReceiverConfig(_SECRET)) as running:
        port = int(running.base_url.rsplit(":", 1)[1])
        with pytest.raises(PortInUse, match=f"webhook receiver cannot listen on .*:{port}"):
            async with receiver(ReceiverConfig(_SECRET, port)):
                pass


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%", "whsec_a"])
def test_a_secret_that_cannot_sign_is_refused(secret: str) -> None:
    """A malformed secret is found when the receiver is configured, and is not repeated in the error."""
    with pytest.raises(ConfigurationError, match="must be `whsec_` followed by the base64 of a key"):
        ReceiverConfig(secret)


def test_a_secret_is_new_and_hidden() -> None:
    """Each secret is another, and none is shown by the configuration."""
    assert new_secret() != new_secret()
    assert _SECRET not in repr(ReceiverConfig(_SECRET))


@settings(max_examples=at_most(40))
@given(
    orders=st.lists(
        st.builds(
            HookFailure,
            status=st.sampled_from([500, 503]),
            times=st.one_of(st.none(), st.integers(1, 3)),
            hook=st.sampled_from([None, "a", "b"]),
        ),
        max_size=4,
    ),
    hooks=st.lists(st.sampled_from("abc"), max_size=12),
)
def test_orders_are_obeyed_as_often_as_told(orders: list[HookFailure], hooks: list[str]) -> None:
    """Every delivery gets the first order for its hook, and no order is obeyed more often than it says."""
    left = tuple(orders)
    for hook in hooks:
        expected = next((order for order in left if order.hook in (None, hook)), None)
        before, (left, obeyed) = left, next_failure(left, hook)
        assert obeyed == expected
        assert len(before) - len(left) == (obeyed is not None and obeyed.times == 1)


@pytest.mark.parametrize("wrong", [{"status": 100}, {"times": 0}, {"seconds": -1}, {"color": "red"}])
def test_an_order_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """Mistakes in an order are found when it is made."""
    with pytest.raises(ValidationError):
        HookFailure.model_validate(wrong)

"""The webhook receiver: takes Standard Webhooks on the loopback address, verifies them and remembers them all.

`POST /hooks/{name}` answers 204 when a delivery is accepted, 400 when one of the three headers or a JSON object
is missing, 401 when the signature is wrong or the timestamp more than five minutes off, or what it was told to answer.
Other processes read `GET /received` (JSON lines) and steer with `POST` (one failure or a list) and `DELETE /failures`.

How deliveries are verified is in `receiver_verdict`, and how they fail on purpose in `receiver_orders`.
"""

import asyncio
import base64
import json
import math
import secrets
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST
from pipeline.devkit.receiver_orders import ORDERS, HookFailure, answered, next_failure
from pipeline.devkit.receiver_verdict import Verdict, Verifier

__all__ = [
    "HookFailure",
    "Received",
    "Receiver",
    "ReceiverConfig",
    "new_secret",
    "next_failure",
    "receiver",
]

_MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery as it arrived. `timestamp` is the header's, `received_at` ours; both in seconds since 1970.

    `body` is the parsed JSON, None when it is not JSON. `status` is what was answered, and 0 for a cut connection.
    """

    hook: str
    webhook_id: str
    timestamp: float | None
    body: Any
    headers: dict[str, str]
    verified: bool
    accepted: bool
    status: int
    received_at: float
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """The delivery as a JSON object."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """`secret` is `whsec_` and base64, or what else `Verifier` reads; `port` 0 takes a free one; `hook` is the name in
    the receiver's `url`. With `tls` it speaks https."""

    secret: str = field(repr=False)
    port: int = 0
    hook: str = "default"
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a secret that cannot sign, without repeating it."""
        Verifier.of(self.secret)


def new_secret() -> str:
    """Make a secret of 24 random bytes, the size that the specification advises."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


class Receiver:
    """A running receiver: everything that arrived, and the orders to fail."""

    def __init__(self, config: ReceiverConfig) -> None:
        self.base_url = ""
        self.received: list[Received] = []
        self._failures: tuple[HookFailure, ...] = ()
        self._config = config
        self._verifier = Verifier.of(config.secret)
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where to post to."""
        return self.hook_url(self._config.hook)

    @property
    def accepted(self) -> tuple[Received, ...]:
        """The deliveries that were accepted, in the order of arrival."""
        return tuple(delivery for delivery in self.received if delivery.accepted)

    def hook_url(self, name: str) -> str:
        """The address of another hook of this receiver."""
        return f"{self.base_url}/hooks/{name}"

    def duplicates(self) -> tuple[str, ...]:
        """The webhook-ids that were accepted more than once."""
        return tuple(name for name, times in self._counted().items() if times > 1)

    def fail(self, *orders: HookFailure) -> None:
        """Put more orders to fail behind those in force."""
        self._failures += orders

    def heal(self) -> None:
        """Take all orders to fail away."""
        self._failures = ()

    async def wait_for(self, count: int, timeout: float) -> tuple[Received, ...]:
        """Wait until `count` different webhook-ids were accepted and return all accepted deliveries.

        Raises `TimeoutError`, which says how many there were, after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout), self._arrived:
                await self._arrived.wait_for(lambda: len(self._counted()) >= count)
        except TimeoutError:
            raise TimeoutError(f"{len(self._counted())} of {count} webhooks were accepted in {timeout:g} s") from None
        return self.accepted

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/hooks/{name}", self._deliver)
        app.router.add_get("/received", self._list)
        app.router.add_post("/failures", self._order)
        app.router.add_delete("/failures", self._heal)
        return app

    async def _deliver(self, http: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in http.headers.items()}
        verdict = self._verifier.judge(await http.read(), headers)
        hook, order = http.match_info["name"], None
        if verdict.status == 204:
            self._failures, order = next_failure(self._failures, hook)
        delivery = _received(hook, headers, verdict, order)
        # Noted before a slow answer: a sender that does not wait for it has still been heard.
        await self._note(delivery)
        return await answered(http, delivery.status, delivery.problem, order)

    async def _note(self, delivery: Received) -> None:
        async with self._arrived:
            self.received.append(delivery)
            self._arrived.notify_all()

    def _counted(self) -> Counter[str]:
        return Counter(delivery.webhook_id for delivery in self.received if delivery.accepted)

    async def _list(self, _http: web.Request) -> web.Response:
        text = "".join(json.dumps(delivery.record()) + "\n" for delivery in self.received)
        return web.Response(text=text, content_type="application/x-ndjson")

    async def _order(self, http: web.Request) -> web.Response:
        try:
            orders = ORDERS.validate_json(await http.read())
        except ValidationError as error:
            return web.json_response({"problem": f"Not an order to fail: {error}"}, status=400)
        self.fail(*([orders] if isinstance(orders, HookFailure) else orders))
        return web.Response(status=204)

    async def _heal(self, _http: web.Request) -> web.Response:
        self.heal()
        return web.Response(status=204)


@asynccontextmanager
async def receiver(config: ReceiverConfig) -> AsyncIterator[Receiver]:
    """Run a receiver on 127.0.0.1 for as long as the block runs; raises `PortInUse` for a fixed port that is taken."""
    running = Receiver(config)
    async with listening(running.application(), config.port, "webhook receiver", config.tls) as port:
        running.base_url = f"{'https' if config.tls else 'http'}://{HOST}:{port}"
        yield running


def _received(hook: str, headers: dict[str, str], verdict: Verdict, order: HookFailure | None) -> Received:
    verified = verdict.status == 204
    return Received(
        hook=hook,
        webhook_id=headers.get("webhook-id", ""),
        timestamp=_seconds(headers.get("webhook-timestamp", "")),
        body=verdict.body,
        headers=headers,
        verified=verified,
        accepted=verified and (order is None or order.accepts),
        status=_status(verdict, order),
        received_at=time.time(),
        problem=verdict.problem,
    )


def _status(verdict: Verdict, order: HookFailure | None) -> int:
    if order is None:
        return verdict.status
    return 0 if order.cut or order.trick == "drip" else order.status or verdict.status


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None

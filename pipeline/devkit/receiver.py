"""The webhook receiver: takes Standard Webhooks on the loopback address, verifies them and remembers them all.

`POST /hooks/{name}` answers 204 when a delivery is accepted, 400 when one of the three headers or a JSON object
is missing, 401 when the signature is wrong or the timestamp more than five minutes off, or what it was told to answer.
Other processes read `GET /received` (JSON lines) and steer with `POST` (one failure or a list) and `DELETE /failures`.

Source of the rules: the Standard Webhooks specification; the signatures are checked by its own library.
"""

import asyncio
import base64
import json
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from pipeline.core.errors import ConfigurationError
from pipeline.devkit.listen import listening
from pipeline.devkit.ports import HOST

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_MAX_BODY_BYTES = 16 * 1024 * 1024


class HookFailure(BaseModel):
    """An order to fail: `times` deliveries (None: all) to the hook `hook` (None: any) are answered by `status`.

    Without a `status` the delivery is accepted, after `seconds`; with `cut` too, but the connection ends instead of an
    answer, so that the sender cannot know. Only deliveries with a right signature use an order up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int | None = Field(default=None, ge=200, le=599)
    times: int | None = Field(default=1, ge=1)
    hook: str | None = None
    seconds: FiniteFloat = Field(default=0.0, ge=0)
    retry_after: str | None = None
    cut: bool = False

    @property
    def accepts(self) -> bool:
        """Whether a delivery under this order counts as accepted."""
        return self.status is None or 200 <= self.status < 300


_ORDERS: TypeAdapter[HookFailure | list[HookFailure]] = TypeAdapter(HookFailure | list[HookFailure])


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
    """`secret` is `whsec_` and base64; `port` 0 takes a free one; `hook` is the name in the receiver's `url`."""

    secret: str = field(repr=False)
    port: int = 0
    hook: str = "default"

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a secret that cannot sign, without repeating it."""
        try:
            Webhook(self.secret)
        except (ValueError, RuntimeError, EmptyWebhookSecretError):
            raise ConfigurationError("The webhook secret must be `whsec_` followed by the base64 of a key.") from None


def new_secret() -> str:
    """Make a secret of 24 random bytes, the size that the specification advises."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a delivery is worth by itself: the status that it deserves, its JSON body, and what is wrong with it."""

    status: int
    body: Any = None
    problem: str = ""


def judge(webhook: Webhook, raw: bytes, headers: Mapping[str, str]) -> Verdict:
    """Verify a delivery (header names in lower case) against the secret and the system's clock."""
    missing = [name for name in _HEADERS if not headers.get(name)]
    if missing:
        return Verdict(400, _json(raw), f"missing {', '.join(missing)}")
    try:
        webhook.verify(raw, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        # ValueError: the library does not catch what a malformed signature or a body that is no text raises in it.
        return Verdict(401, _json(raw), str(error))
    body = _json(raw)
    return Verdict(204, body) if isinstance(body, dict) else Verdict(400, body, "the body is not a JSON object")


def next_failure(orders: Sequence[HookFailure], hook: str) -> tuple[tuple[HookFailure, ...], HookFailure | None]:
    """Take the first order that concerns a hook: the orders that remain, and the one to obey."""
    for place, order in enumerate(orders):
        if order.hook in (None, hook):
            rest = order.model_copy(update={"times": order.times - 1 if order.times else None})
            kept = () if rest.times == 0 else (rest,)
            return (*orders[:place], *kept, *orders[place + 1 :]), order
    return tuple(orders), None


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


class Receiver:
    """A running receiver: everything that arrived, and the orders to fail."""

    def __init__(self, config: ReceiverConfig) -> None:
        self.base_url = ""
        self.received: list[Received] = []
        self._failures: tuple[HookFailure, ...] = ()
        self._config = config
        self._webhook = Webhook(config.secret)
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
        verdict = judge(self._webhook, await http.read(), headers)
        hook, order = http.match_info["name"], None
        if verdict.status == 204:
            self._failures, order = next_failure(self._failures, hook)
        delivery = _received(hook, headers, verdict, order)
        # Noted before a slow answer: a sender that does not wait for it has still been heard.
        await self._note(delivery)
        return await _answered(http, delivery, order)

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
            orders = _ORDERS.validate_json(await http.read())
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
    async with listening(running.application(), config.port, "webhook receiver") as port:
        running.base_url = f"http://{HOST}:{port}"
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
    return 0 if order.cut else order.status or verdict.status


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


async def _answered(http: web.Request, delivery: Received, order: HookFailure | None) -> web.Response:
    if order and order.seconds:
        await asyncio.sleep(order.seconds)
    if order and order.cut and http.transport is not None:
        http.transport.abort()
    headers = {"retry-after": order.retry_after} if order and order.retry_after else {}
    return web.Response(status=delivery.status or 500, text=delivery.problem or None, headers=headers)

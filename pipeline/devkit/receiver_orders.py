"""Orders to a webhook receiver to fail, and how they are carried out: every way in which real receivers misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

Trick = Literal["drip", "drip body", "endless", "early end"]
"""`drip`: the answer comes a byte a second, and so does, after its head, the body of `drip body`. `endless`: the body
does not end. `early end`: the connection closes before all of the body that was announced."""

DRIP_SECONDS = 1.0

_CHUNK = b"x" * 65_536


class HookFailure(BaseModel):
    """An order to fail: `times` deliveries (None: all) to the hook `hook` (None: any) are answered by `status`.

    Without a `status` the delivery is accepted, after `seconds`; with `cut` too, but the connection ends instead of an
    answer, so that the sender cannot know. `location` is where a redirect leads to, and `trick` how the answer is
    spoilt. Only deliveries with a right signature use an order up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int | None = Field(default=None, ge=200, le=599)
    times: int | None = Field(default=1, ge=1)
    hook: str | None = None
    seconds: FiniteFloat = Field(default=0.0, ge=0)
    retry_after: str | None = None
    location: str | None = None
    cut: bool = False
    trick: Trick | None = None

    @property
    def accepts(self) -> bool:
        """Whether a delivery under this order counts as accepted."""
        return self.status is None or 200 <= self.status < 300


ORDERS: TypeAdapter[HookFailure | list[HookFailure]] = TypeAdapter(HookFailure | list[HookFailure])


def next_failure(orders: Sequence[HookFailure], hook: str) -> tuple[tuple[HookFailure, ...], HookFailure | None]:
    """Take the first order that concerns a hook: the orders that remain, and the one to obey."""
    for place, order in enumerate(orders):
        if order.hook in (None, hook):
            rest = order.model_copy(update={"times": order.times - 1 if order.times else None})
            kept = () if rest.times == 0 else (rest,)
            return (*orders[:place], *kept, *orders[place + 1 :]), order
    return tuple(orders), None


async def answered(http: web.Request, status: int, problem: str, order: HookFailure | None) -> web.StreamResponse:
    """Answer a request with `status`, or as an order says. Where that is to end the connection, it is ended."""
    if order is None:
        return web.Response(status=status, text=problem or None)
    if order.seconds:
        await asyncio.sleep(order.seconds)
    if order.cut and http.transport is not None:
        http.transport.abort()
    if order.trick:
        return await _spoilt(http, status or 200, order.trick)
    wanted = {"retry-after": order.retry_after, "location": order.location}
    headers = {name: value for name, value in wanted.items() if value}
    return web.Response(status=status or 500, text=problem or None, headers=headers)


async def _spoilt(http: web.Request, status: int, trick: Trick) -> web.StreamResponse:
    transport = http.transport
    if transport is None:  # the sender is gone already
        return web.Response()
    if trick == "drip":
        for byte in b"HTTP/1.1 %d Dripping\r\ncontent-length: 0\r\n\r\n" % status:
            transport.write(bytes([byte]))
            await asyncio.sleep(DRIP_SECONDS)
        transport.close()
        return web.Response()
    # A 204 has no body to play tricks with.
    response = web.StreamResponse(status=200 if status == 204 else status)
    if trick != "endless":
        response.content_length = 1_000
    await response.prepare(http)
    await response.write(b"x")
    while trick != "early end":
        await asyncio.sleep(0 if trick == "endless" else DRIP_SECONDS)
        await response.write(_CHUNK if trick == "endless" else b"x")
    transport.close()
    return response

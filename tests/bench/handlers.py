"""What the stage of a benchmark does: next to nothing, or wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.stage import Context, Handler
from tests.bench.calls import Call
from tests.bench.order import Order

LONG_EVERY = 25
"""Where an order has long waits, one key of so many has them."""

P = TypeVar("P", bound=Payload)


class Raw(Payload):
    """A value nobody looks into."""

    value: bytes


class RawCodec:
    """Passes values through: what is left is the runtime."""

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        """Wrap the bytes."""
        return Raw.model_construct(value=value)  # type: ignore[return-value]  # the stage is declared with Raw

    async def encode(self, noun: str, payload: Payload) -> bytes:
        """Unwrap the bytes."""
        return payload.value if isinstance(payload, Raw) else b""


@dataclass(frozen=True, slots=True)
class Noop:
    """Returns what it is given."""

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Do nothing."""
        return (event.payload,)


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits as a call of somebody else's service does; one key's call never ends."""

    seconds: float
    stuck: bytes = b""

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Wait, then return what was given."""
        if event.key == self.stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(self.seconds)
        return (event.payload,)


@dataclass(frozen=True, slots=True)
class WaitByChance:
    """Waits between half and one and a half of `seconds`: calls that began together do not end together."""

    seconds: float
    chance: random.Random

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Wait, then return what was given."""
        await asyncio.sleep(self.seconds * (0.5 + self.chance.random()))
        return (event.payload,)


@dataclass(frozen=True, slots=True)
class Watched:
    """Waits, longer for some keys, and keeps a line of each call."""

    seconds: float
    long: float
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Payload]:
        """Wait, then return what was given."""
        _, partition, offset = event.origin.position
        began = time.monotonic()
        seconds = self.long if self.long and is_long(event.key) else self.seconds
        ended = False
        try:
            if seconds:
                await asyncio.sleep(seconds)
            ended = True
        finally:
            self.calls.append(Call(partition, offset, began, began + seconds, ended))
        return (event.payload,)


def is_long(key: bytes) -> bool:
    """Whether calls for this key are long, where an order has such: keys end in their numbers."""
    return int(key.rpartition(b"-")[2]) % LONG_EVERY == 0


def handler_of(order: Order) -> Handler[Payload, Payload]:
    """Make the handler that an order asks for."""
    if order.watch:
        return Watched(order.wait, order.long)
    if order.by_chance:
        return WaitByChance(order.wait, random.Random(4))
    return Wait(order.wait, order.stuck.encode()) if order.wait else Noop()

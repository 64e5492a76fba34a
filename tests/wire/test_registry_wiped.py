"""A registry that was wiped, or is another one: what the client believes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.core.errors import Defer, Reject
from pipeline.core.payloads import Request, Result
from pipeline.wire.codec import AvroCodec
from pipeline.wire.registry import FRESH_SECONDS, REMEMBERED, Registry, RegistryConfig, open_registry
from tests.schemas.examples import FULL, SCHEMAS
from tests.wire.fake_registry import FakeRegistry

pytestmark = pytest.mark.local

NOW = 1_800_000_000.0
SUBJECT = "pipeline.results-value"
RESULTS = SCHEMAS.newest("results").schema.text


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


REQUESTS = SCHEMAS.newest("requests").schema.text


@asynccontextmanager
async def told() -> AsyncIterator[tuple[FakeRegistry, Registry, Clock, int]]:
    """Run a registry that has told this process the id of results, and knows that of requests."""
    clock = Clock()
    async with (
        FakeRegistry().running() as fake,
        open_registry(RegistryConfig(fake.url, "pipeline", timeout=30), clock) as registry,
    ):
        fake.add(RESULTS, SUBJECT)
        await registry.id_of("results", RESULTS)
        yield fake, registry, clock, fake.add(REQUESTS)


FORGOTTEN = "is not the one it was: it has forgotten id 1, "
CURE = (
    ". It was wiped or replaced, or the schema was deleted. Restore its backup; without one, run "
    "`pipeline schemas register`, then start the stages again"
)


async def test_an_unknown_id_of_a_registry_that_has_forgotten_others_defers() -> None:
    """A record is not to blame for a registry that was wiped; restored, it is believed again."""
    async with told() as (fake, registry, _, number):
        kept = dict(fake.schemas)
        fake.schemas.clear()
        with pytest.raises(Defer) as caught:
            await registry.schema(number)
        name = SCHEMAS.newest("results").schema.name
        assert caught.value.reason == f"the schema registry at {fake.url} {FORGOTTEN}{name}{CURE}"
        fake.schemas.update(kept)
        assert await registry.schema(number) == REQUESTS


async def test_an_id_that_has_another_schema_now_makes_new_ids_wait() -> None:
    """What such a registry says about an id that is new here is not believed."""
    async with told() as (fake, registry, clock, number):
        fake.schemas[1], fake.schemas[number] = fake.schemas[number], fake.schemas[1]
        clock.now += FRESH_SECONDS
        names = [SCHEMAS.newest(noun).schema.name for noun in ("results", "requests")]
        with pytest.raises(Defer, match=f"its id 1 was {names[0]} and is another schema now, {names[1]}"):
            await registry.schema(number)


async def test_an_id_told_a_moment_ago_is_not_asked_for_again() -> None:
    """At the start many ids are new at once; each costs one question. Later a new one costs a look at the others."""
    async with told() as (fake, registry, clock, number):
        await registry.schema(number)
        assert fake.calls == {f"POST /subjects/{SUBJECT}": 1, f"GET /schemas/ids/{number}": 1}
        clock.now += FRESH_SECONDS
        await registry.schema(fake.add("{}"))
        assert fake.calls[f"GET /schemas/ids/{number}"] == 2
        assert fake.calls["GET /schemas/ids/1"] == 1


async def test_white_space_and_docs_are_no_change() -> None:
    """A registry that shows the same schema in another form is the same registry."""
    async with told() as (fake, registry, clock, number):
        fake.schemas[1] = {"schema": json.dumps(json.loads(RESULTS) | {"doc": "other"}, indent=3)}
        clock.now += FRESH_SECONDS
        assert await registry.schema(number) == REQUESTS


async def test_only_the_last_ids_are_looked_at_again() -> None:
    """However many schemas a process meets, a new one costs a bounded number of questions; no schema is one, too."""
    async with told() as (fake, registry, clock, _):
        for number in range(100, 100 + REMEMBERED):
            fake.schemas[number] = {"schema": f'"{number}"'}
            await registry.schema(number)
        fake.calls.clear()
        clock.now += FRESH_SECONDS
        fake.schemas[7] = {"schema": REQUESTS}
        await registry.schema(7)
        assert fake.calls.total() == 1 + REMEMBERED
        assert "GET /schemas/ids/1" not in fake.calls
        del fake.schemas[100 + REMEMBERED - 1]
        with pytest.raises(Defer, match=f"forgotten id {100 + REMEMBERED - 1}, which is no record"):
            await registry.schema(9)


async def test_a_registry_in_trouble_while_it_is_looked_at_defers() -> None:
    """An answer that is no verdict on an id says nothing about a wipe."""
    async with told() as (fake, registry, clock, _):
        fake.mood = "refusing"
        clock.now += FRESH_SECONDS
        with pytest.raises(Defer, match="refuses to answer"):
            await registry.check()


async def test_no_record_is_blamed_while_ids_mean_something_else() -> None:
    """A reader that knows id 1 as results meets requests that were written with id 1 after a wipe: they wait. With a
    registry that is sound, the same bytes are rejected.
    """
    async with told() as (fake, registry, clock, number):
        codec = AvroCodec(SCHEMAS, registry)
        plain = await AvroCodec(SCHEMAS).encode("results", FULL["results"])
        assert await codec.decode("results", Result, b"\0\0\0\0\1" + plain[10:]) == FULL["results"]
        plain = await AvroCodec(SCHEMAS).encode("requests", FULL["requests"])
        clock.now += FRESH_SECONDS
        with pytest.raises(Reject, match="it is a record of results"):
            await codec.decode("requests", Request, b"\0\0\0\0\1" + plain[10:])
        fake.schemas[1] = fake.schemas[number]
        clock.now += FRESH_SECONDS
        with pytest.raises(Defer, match="is another schema now"):
            await codec.decode("requests", Request, b"\0\0\0\0\1" + plain[10:])

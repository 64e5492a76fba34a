"""The registry's client, against a small registry that can be in any trouble."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from pipeline.core.errors import ConfigurationError, Defer, Reject
from pipeline.core.payloads import Result
from pipeline.wire.codec import AvroCodec
from pipeline.wire.registry import THREADS, Registry, RegistryConfig, open_registry
from tests.schemas.examples import FULL, NOUNS, SCHEMAS
from tests.wire.fake_registry import FakeRegistry, Mood

pytestmark = pytest.mark.local

NOW = 1_800_000_000.0
SUBJECT = "pipeline.results-value"
RESULTS = SCHEMAS.newest("results").schema.text


class Set(NamedTuple):
    """A registry, and its client."""

    fake: FakeRegistry
    registry: Registry


@asynccontextmanager
async def asked(*, auto_register: bool = False, timeout: float = 30.0) -> AsyncIterator[Set]:
    """Run a registry and open its client."""
    async with FakeRegistry().running() as fake:
        config = RegistryConfig(fake.url, "pipeline", auto_register=auto_register, timeout=timeout)
        async with open_registry(config, lambda: NOW) as registry:
            yield Set(fake, registry)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another task brings about."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def deferred(question: Awaitable[object], fake: FakeRegistry) -> str:
    """The reason of the Defer that a question ends in; it is due 5 s from now and names the address."""
    with pytest.raises(Defer) as caught:
        await question
    assert (caught.value.until, caught.value.code) == (NOW + 5.0, "schema_registry")
    start = f"the schema registry at {fake.url} "
    assert caught.value.reason.startswith(start)
    assert "hunter2" not in caught.value.reason
    # A connection that ends may be noticed in either way.
    return caught.value.reason.removeprefix(start).replace("ReadError", "RemoteProtocolError")


async def test_a_schema_is_found_by_its_id() -> None:
    """Its text comes as it was registered."""
    async with asked() as (fake, registry):
        number = fake.add(RESULTS)
        assert await registry.schema(number) == RESULTS


async def test_a_hundred_records_of_one_unknown_id_ask_once() -> None:
    """Those who come while the question is under way wait for its answer."""
    async with asked() as (fake, registry):
        number = fake.add(RESULTS)
        value = await AvroCodec(SCHEMAS).encode("results", FULL["results"])
        framed = b"\0" + number.to_bytes(4, "big") + value[10:]
        codec = AvroCodec(SCHEMAS, registry)
        fake.mood = "slow"
        decoding = [asyncio.create_task(codec.decode("results", Result, framed)) for _ in range(100)]
        await until(lambda: fake.calls.total() > 0)
        fake.release.set()
        assert await asyncio.gather(*decoding) == [FULL["results"]] * 100
        assert await codec.decode("results", Result, framed) == FULL["results"]
        assert fake.calls == {f"GET /schemas/ids/{number}": 1}


async def test_a_record_that_gives_up_takes_the_answer_from_nobody() -> None:
    """One of two who wait is cancelled; the other gets the answer to the same question."""
    async with asked() as (fake, registry):
        number = fake.add(RESULTS)
        fake.mood = "slow"
        first, second = (asyncio.create_task(registry.schema(number)) for _ in range(2))
        await until(lambda: fake.calls.total() > 0)
        first.cancel()
        await asyncio.wait([first])
        fake.release.set()
        assert await second == RESULTS
        assert fake.calls.total() == 1


async def test_an_unknown_id_is_rejected_with_its_number() -> None:
    """The registry is well and does not know it: waiting would not help."""
    async with asked() as (fake, registry):
        with pytest.raises(Reject) as caught:
            await registry.schema(4711)
        assert caught.value.code == "unknown_schema"
        assert caught.value.reason == (
            f"the value names schema id 4711 of the registry at {fake.url}, which is not known there"
        )


TROUBLES: dict[Mood, str] = {
    "down": "cannot be reached or understood (RemoteProtocolError)",
    "broken": "refuses to answer (HTTP 500, code 50001)",
    "refusing": "refuses to answer (HTTP 401, code 401)",
    "elsewhere": "refuses to answer (HTTP 404, code -1)",
    "babbling": "cannot be reached or understood (JSONDecodeError)",
}


@pytest.mark.parametrize("mood", TROUBLES)
async def test_a_registry_in_trouble_defers_and_heals(mood: Mood) -> None:
    """Down, broken, refusing, misaddressed or talking nonsense: the record waits, and goes on when it is over."""
    async with asked() as (fake, registry):
        number = fake.add(RESULTS, SUBJECT)
        fake.mood = mood
        assert await deferred(registry.schema(number), fake) == TROUBLES[mood]
        assert await deferred(registry.id_of("results", RESULTS), fake) == TROUBLES[mood]
        assert fake.calls.total() == 2
        fake.mood = "well"
        assert await registry.schema(number) == RESULTS
        assert await registry.id_of("results", RESULTS) == number


async def test_a_registry_that_is_not_there_defers() -> None:
    """Nothing listens at the address."""
    fake = FakeRegistry()
    async with fake.running():
        pass
    async with open_registry(RegistryConfig(fake.url, "pipeline"), lambda: NOW) as registry:
        assert await deferred(registry.schema(1), fake) == "cannot be reached or understood (ConnectError)"


async def test_a_slow_registry_defers_in_time_and_heals() -> None:
    """A record waits for it no longer than the time-out; when it is quick again, the answer comes."""
    async with asked(timeout=0.05) as (fake, registry):
        number = fake.add(RESULTS)
        fake.mood = "slow"
        reason = await deferred(registry.schema(number), fake)
        assert reason in ("has not answered within 0.05 s", "cannot be reached or understood (ReadTimeout)")
        fake.release.set()
        fake.mood = "well"
        found = ""
        while not found:  # the first of these may still join the question that timed out
            with suppress(Defer):
                found = await registry.schema(number)
        assert found == RESULTS


@pytest.mark.parametrize(
    "key, value, why",
    [
        ("schemaType", "PROTOBUF", "is not an Avro schema"),
        ("references", [{"name": "a", "subject": "b", "version": 1}], "refers to other schemas: register it whole"),
    ],
)
async def test_a_schema_of_another_kind_is_rejected(key: str, value: object, why: str) -> None:
    """Protobuf and JSON schemas, and Avro schemas in pieces, cannot be read here."""
    async with asked() as (fake, registry):
        fake.schemas[1] = {"schema": RESULTS, key: value}
        with pytest.raises(Reject, match=f"schema id 1 of the registry at {fake.url}, which {why}"):
            await registry.schema(1)


async def test_an_answer_without_a_schema_is_no_schema() -> None:
    """Empty text, which no parser takes, is for the codec to refuse."""
    async with asked() as (fake, registry):
        fake.schemas[1] = {"some": "thing"}
        assert await registry.schema(1) == ""


# ------------------------------------------------------------------ writing


async def test_a_schema_is_looked_up_under_the_subject_of_its_noun() -> None:
    """`<prefix>.<noun>-value`; looking up registers nothing."""
    async with asked() as (fake, registry):
        fake.add("{}")
        number = fake.add(RESULTS, SUBJECT)
        assert await registry.id_of("results", RESULTS) == number
        assert fake.calls == {f"POST /subjects/{SUBJECT}": 1}


@pytest.mark.parametrize("known", [None, "{}"], ids=["no subject", "another schema"])
async def test_an_unregistered_schema_defers_and_says_what_to_do(known: str | None) -> None:
    """Nothing is registered unasked; once a person has done it, writing goes on."""
    async with asked() as (fake, registry):
        if known:
            fake.add(known, SUBJECT)
        reason = await deferred(registry.id_of("results", RESULTS), fake)
        assert reason == (
            f"lacks the newest schema of results under the subject {SUBJECT}: run `pipeline schemas register`"
        )
        number = fake.add(RESULTS, SUBJECT)
        assert await registry.id_of("results", RESULTS) == number


async def test_a_schema_is_registered_where_that_is_wanted() -> None:
    """In development, a first write registers the schema."""
    async with asked(auto_register=True) as (fake, registry):
        number = await registry.id_of("results", RESULTS)
        assert fake.subjects == {SUBJECT: [number]}
        assert fake.schemas[number]["schema"] == RESULTS


async def test_an_answer_without_an_id_defers() -> None:
    """A registry that talks nonsense is not taken at its word."""
    async with asked() as (fake, registry):
        fake.schemas[0] = {"schema": RESULTS, "id": None}
        fake.subjects[SUBJECT] = [0]
        assert await deferred(registry.id_of("results", RESULTS), fake) == "gave the schema of results no id"


async def test_a_codec_with_a_registry_writes_what_another_reads() -> None:
    """Two services that share nothing but the registry understand each other, in every noun."""
    async with asked(auto_register=True) as (fake, registry):
        writer = AvroCodec(SCHEMAS, registry)
        await writer.prepare(SCHEMAS.nouns)
        async with open_registry(RegistryConfig(fake.url, "another"), lambda: NOW) as other:
            reader = AvroCodec(SCHEMAS, other)
            for noun, payload in FULL.items():
                assert await reader.decode(noun, NOUNS[noun], await writer.encode(noun, payload)) == payload


# ------------------------------------------------------------------ opening and closing


async def test_questions_under_way_do_not_hold_the_end_up() -> None:
    """Closing drops questions, those in threads and those still in line, and asyncio has nothing to complain of."""
    async with asked(timeout=0.2) as (fake, registry):
        fake.mood = "slow"
        asking = [asyncio.create_task(registry.schema(number)) for number in range(THREADS + 2)]
        await until(lambda: fake.calls.total() == THREADS)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
    assert all(task.cancelled() for task in asking)
    assert fake.calls.total() == THREADS


async def test_what_questions_meet_with_after_the_end_is_nobodys_concern() -> None:
    """Their connections are cut when the client is closed: asyncio has no error left that nobody has looked at."""
    async with asked() as (fake, registry):
        fake.mood = "slow"
        asking = asyncio.create_task(registry.schema(1))
        await until(lambda: fake.calls.total() > 0)
        (under_way,) = registry._asked.values()
        asking.cancel()
    assert under_way.cancelled()
    with suppress(asyncio.CancelledError):
        await asking


async def test_credentials_in_the_address_are_sent_and_never_shown() -> None:
    """They go into a header; errors, representations and the library's own logs have the bare address."""
    async with FakeRegistry().running() as fake:
        url = fake.url.replace("http://", "http://a%40b:hunter2@") + "/?token=hunter2"
        config = RegistryConfig(f"{url}, {fake.url}", "pipeline")
        assert "hunter2" not in repr(config)
        async with open_registry(config, lambda: NOW) as registry:
            fake.mood = "refusing"
            with pytest.raises(Defer) as caught:
                await registry.schema(1)
    assert (
        caught.value.reason == f"the schema registry at {fake.url}/, {fake.url} refuses to answer (HTTP 401, code 401)"
    )
    assert fake.authorizations[0] == "Basic " + base64.b64encode(b"a@b:hunter2").decode()


WRONG = "SCHEMA_REGISTRY_URL must be one or more addresses like https://registry.example:8081"
REFUSES = "the schema registry's client refuses its settings"
MISTAKES: dict[str, tuple[RegistryConfig, str]] = {
    "no scheme": (RegistryConfig("user:hunter2@localhost:8081", "p"), WRONG),
    "another scheme": (RegistryConfig("mock://x", "p"), WRONG),
    "no host": (RegistryConfig("http://:8081", "p"), WRONG),
    "no port": (RegistryConfig("http://localhost:hunter2", "p"), WRONG),
    "half an address": (RegistryConfig("http://[::1", "p"), WRONG),
    "one of two is wrong": (RegistryConfig("http://localhost:8081,", "p"), WRONG),
    "several users": (
        RegistryConfig("http://a:hunter2@x,http://b:hunter2@y", "p"),
        "SCHEMA_REGISTRY_URL names several users: give all its addresses the same one",
    ),
    "unknown option": (
        RegistryConfig("http://localhost", "p", options={"ssl.colour": "hunter2"}),
        f"{REFUSES} (ValueError): check SCHEMA_REGISTRY_URL and ssl.colour",
    ),
    "no such file": (
        RegistryConfig("http://localhost", "p", options={"ssl.ca.location": "/hunter2"}),
        f"{REFUSES} (FileNotFoundError): check SCHEMA_REGISTRY_URL and ssl.ca.location",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_in_its_configuration_is_one_sentence(mistake: str) -> None:
    """It names the variable or the option, and never shows a secret."""
    config, sentence = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as caught:
        async with open_registry(config, lambda: NOW):
            pytest.fail("it opened")
    assert str(caught.value) == sentence


async def test_an_incompatible_schema_is_not_registered_by_the_way() -> None:
    """In development, too, the registry has the last word: the reason says what to run."""
    async with asked(auto_register=True) as (fake, registry):
        fake.mood = "conflict"
        reason = await deferred(registry.id_of("results", RESULTS), fake)
        assert reason == (
            f"finds the newest schema of results incompatible with others under the subject {SUBJECT} (HTTP 409): "
            "`pipeline schemas register` says in which field"
        )

"""The registry's client and the codec, against a real registry."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline.core.errors import ConfigurationError, Defer, Reject
from pipeline.core.payloads import Document, Request, Result
from pipeline.core.subjects import FULL_TRANSITIVE, Incompatible, OwnSchema
from pipeline.devkit.registry_server import RegistryServer, embedded_registry
from pipeline.ops.schema_registry import carry_out, look, plan
from pipeline.wire.avro import parse
from pipeline.wire.codec import AvroCodec
from pipeline.wire.registry import FRESH_SECONDS, Registry, RegistryConfig, open_registry
from pipeline.wire.registry_subjects import RegistrySubjects, open_subjects, own_schemas
from tests.registry_fixture import registry_config
from tests.schemas.examples import FULL, NOUNS, SCHEMAS

pytestmark = pytest.mark.system

NOW = 1_800_000_000.0


@pytest.fixture
def prefix() -> str:
    """Subjects that no other test uses."""
    return f"t{uuid4().hex}"


def config(url: str, prefix: str, timeout: float = 30.0) -> RegistryConfig:
    return RegistryConfig(url, prefix, timeout=timeout)


@asynccontextmanager
async def opened(url: str, prefix: str) -> AsyncIterator[tuple[RegistrySubjects, Registry]]:
    async with (
        open_subjects(config(url, prefix), lambda: NOW) as subjects,
        open_registry(config(url, prefix), lambda: NOW) as registry,
    ):
        yield subjects, registry


async def register_all(subjects: RegistrySubjects, prefix: str, own: Sequence[OwnSchema] = ()) -> dict[str, int]:
    """Do as `pipeline schemas register` does; returns each file's id."""
    own = own or own_schemas(SCHEMAS, prefix)
    steps = plan([state async for state in look(subjects, own)], keep_level=False)
    done = [one async for one in carry_out(subjects, steps)]
    assert not any(one.refusal for one in done)
    return {own.file: there.id async for state in look(subjects, own) for own, there in state.ours if there}


def own_schema(prefix: str, fields: Sequence[object], number: int = 1, **more: object) -> OwnSchema:
    text = json.dumps({"type": "record", "name": "R", "namespace": prefix, "fields": fields, **more})
    return OwnSchema(f"{prefix}.r-value", number, f"r/v{number}.avsc", text, parse(text).fingerprint)


def framed(schema_id: int, value: bytes) -> bytes:
    """A value in single-object encoding, as it is with a registry."""
    return b"\0" + schema_id.to_bytes(4, "big") + value[10:]


# ------------------------------------------------------------------ registering


async def test_registering_is_complete_and_done_once(registry_server: RegistryServer, prefix: str) -> None:
    """All versions are there, each subject at FULL_TRANSITIVE; a second run has nothing to do, nor is there a rest."""
    async with opened(registry_server.url, prefix) as (subjects, _):
        own = own_schemas(SCHEMAS, prefix)
        before = [state async for state in look(subjects, own)]
        assert {state.level for state in before} == {"NONE"}  # the trap of Apicurio
        assert sum(len(state.missing) for state in before) == len(own)
        await register_all(subjects, prefix)
        after = [state async for state in look(subjects, own)]
        assert [state.differences(keep_level=False) for state in after] == [[]] * len(SCHEMAS.nouns)
        assert {state.level for state in after} == {FULL_TRANSITIVE}
        assert plan(after, keep_level=False) == []


async def test_white_space_and_docs_make_no_new_version(registry_server: RegistryServer, prefix: str) -> None:
    """Somebody else's tool wrote the same schema in another way: it is found, and not registered again."""
    ours = own_schema(prefix, [{"name": "a", "type": "int", "doc": "how many"}])
    theirs = json.dumps(json.loads(own_schema(prefix, [{"name": "a", "type": "int"}]).text), indent=4)
    with SchemaRegistryClient({"url": registry_server.url}) as client:
        number = await asyncio.to_thread(client.register_schema, ours.subject, Schema(theirs, "AVRO"))
    async with opened(registry_server.url, prefix) as (subjects, registry):
        found = await subjects.find(ours)
        assert found is not None
        assert found.id == number
        assert await registry.id_of("r", ours.text) == number
        assert await subjects.register(ours) == number
        assert len(await subjects.versions(ours.subject)) == 1


async def test_eight_registrations_at_once_make_one_version(registry_server: RegistryServer, prefix: str) -> None:
    """Eight deployments start together, levels included: none fails, and all find the same ids."""
    own = [
        own_schema(prefix, [{"name": "a", "type": "int"}]),
        own_schema(prefix, [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 0}], 2),
    ]

    async def register() -> dict[str, int]:
        async with open_subjects(config(registry_server.url, prefix), lambda: NOW) as subjects:
            return await register_all(subjects, prefix, own)

    found = await asyncio.gather(*(register() for _ in range(8)))
    assert found == [found[0]] * 8
    async with open_subjects(config(registry_server.url, prefix), lambda: NOW) as subjects:
        assert [one.id for one in await subjects.versions(own[0].subject)] == list(found[0].values())


async def test_an_incompatible_schema_is_refused_with_the_field(registry_server: RegistryServer, prefix: str) -> None:
    """The message has the file, the subject, the registry's words, the field and the cure; nothing is registered."""
    first = own_schema(prefix, [{"name": "a", "type": "int"}])
    async with opened(registry_server.url, prefix) as (subjects, _):
        await subjects.set_level(first.subject, FULL_TRANSITIVE)
        await subjects.register(first)
        needy = own_schema(prefix, [{"name": "a", "type": "int"}, {"name": "colour", "type": "string"}], 2)
        with pytest.raises(Incompatible) as caught:
            await subjects.register(needy)
        assert str(caught.value) == (
            f"r/v2.avsc is incompatible with what {first.subject} has (HTTP 409: Incompatible artifact: "
            f"{first.subject} [AVRO], num of incompatible diffs: {{1}}, list of diff types: [colour at /fields/1]). "
            f"r/v2.avsc cannot read records of version 1 of {first.subject}: field colour is new and has no default. "
            "Give it one; if it was renamed, add its old name as an alias. "
            "If the other version is the mistake, delete it in the registry. Then run this again"
        )
        retyped = own_schema(prefix, [{"name": "a", "type": "string"}], 2)
        with pytest.raises(Incompatible, match="field a has another type there"):
            await subjects.register(retyped)
        assert len(await subjects.versions(first.subject)) == 1
    auto = RegistryConfig(registry_server.url, prefix, auto_register=True, timeout=30)
    async with open_registry(auto, lambda: NOW) as registry:
        with pytest.raises(Defer, match=r"incompatible with others under the subject .*`pipeline schemas register`"):
            await registry.id_of("r", retyped.text)


async def test_a_conflict_that_our_own_check_does_not_see_is_told(registry_server: RegistryServer, prefix: str) -> None:
    """The registry has the last word: beside what is no record, say. What it has there is named as none of ours."""
    ours = own_schema(prefix, [{"name": "a", "type": "int"}])
    enum = Schema(json.dumps({"type": "enum", "name": f"{prefix}.R", "symbols": ["A"]}), "AVRO")
    async with opened(registry_server.url, prefix) as (subjects, _):
        await subjects.set_level(ours.subject, FULL_TRANSITIVE)
        with SchemaRegistryClient({"url": registry_server.url}) as client:
            await asyncio.to_thread(client.register_schema, ours.subject, enum)
        with pytest.raises(Incompatible, match="Our own check finds nothing wrong: look at the versions that it has"):
            await subjects.register(ours)
        (state,) = [state async for state in look(subjects, [ours])]
    assert [(one.form, one.name) for one in state.others] == [(None, "which is not the schema of a record")]


async def test_versions_that_are_none_of_ours_are_named(registry_server: RegistryServer, prefix: str) -> None:
    """What somebody else registered behind ours is a difference, and so is that the newest is another one."""
    first = own_schema(prefix, [{"name": "a", "type": "int"}])
    extra = own_schema(prefix, [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 0}], 2)
    async with opened(registry_server.url, prefix) as (subjects, _):
        await subjects.set_level(first.subject, FULL_TRANSITIVE)
        await subjects.register(first)
        number = await subjects.register(extra)
        (state,) = [state async for state in look(subjects, [first])]
    assert state.differences(keep_level=False) == [
        f"has version 2 (id {number}, {prefix}.R), which is none of ours",
        "has another newest version than r/v1.avsc",
    ]


async def test_an_address_that_is_no_registry_is_said_to_be_wrong(registry_server: RegistryServer) -> None:
    """Apicurio's address without the path of its API; the password is not shown."""
    url = registry_server.url.removesuffix("/apis/ccompat/v7").replace("://", "://me:hunter2@")
    async with opened(url, "p") as (subjects, _):
        with pytest.raises(ConfigurationError, match="/apis/ccompat/v7") as caught:
            await subjects.versions("p.r-value")
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------ records


async def test_all_topics_are_written_and_read_through_it(registry_server: RegistryServer, prefix: str) -> None:
    """Every noun in Confluent's framing, by a writer and a reader that share nothing but the registry; and a record of
    an old version is read as the newest.
    """
    async with opened(registry_server.url, prefix) as (subjects, registry):
        ids = await register_all(subjects, prefix)
        writer = AvroCodec(SCHEMAS, registry)
        await writer.prepare(SCHEMAS.nouns)
        async with open_registry(config(registry_server.url, "another"), lambda: NOW) as other:
            reader = AvroCodec(SCHEMAS, other)
            for noun, payload in FULL.items():
                value = await writer.encode(noun, payload)
                newest = SCHEMAS.newest(noun).number
                assert value[:5] == b"\0" + ids[f"{noun}/v{newest}.avsc"].to_bytes(4, "big")
                assert await reader.decode(noun, NOUNS[noun], value) == payload
            golden = next(Path("schemas/golden/documents").glob("v1*.avro")).read_bytes()
            old = await AvroCodec(SCHEMAS).decode("documents", Document, golden)
            assert await reader.decode("documents", Document, framed(ids["documents/v1.avsc"], golden)) == old


async def test_confluents_own_serializer_and_ours_read_each_other(registry_server: RegistryServer, prefix: str) -> None:
    """An upstream service with confluent-kafka's AvroSerializer is read by us, and its AvroDeserializer reads ours."""
    topic = f"{prefix}.requests"
    request = FULL["requests"]
    async with opened(registry_server.url, prefix) as (subjects, registry):
        await register_all(subjects, prefix)
        codec = AvroCodec(SCHEMAS, registry)
        value = await codec.encode("requests", request)
        with SchemaRegistryClient({"url": registry_server.url}) as client:
            theirs = await asyncio.to_thread(serialized, client, topic, request.model_dump())
            assert theirs == value
            assert await codec.decode("requests", Request, theirs) == request
            assert await asyncio.to_thread(deserialized, client, topic, value) == request.model_dump()


def serialized(client: SchemaRegistryClient, topic: str, value: dict[str, Any]) -> bytes:
    settings = {
        "auto.register.schemas": False,
        "normalize.schemas": True,
        "subject.name.strategy": topic_subject_name_strategy,
    }
    serialize = AvroSerializer(client, SCHEMAS.newest("requests").schema.text, conf=settings)
    return bytes(serialize(value, SerializationContext(topic, MessageField.VALUE)))


def deserialized(client: SchemaRegistryClient, topic: str, value: bytes) -> object:
    deserialize = AvroDeserializer(client, conf={"subject.name.strategy": topic_subject_name_strategy})
    return deserialize(value, SerializationContext(topic, MessageField.VALUE))


async def test_unknown_ids_and_ids_of_other_subjects_are_rejected(registry_server: RegistryServer, prefix: str) -> None:
    """An id that nobody gave, and one that means another noun's schema, or a schema that no topic here carries."""
    ours = own_schema(prefix, [{"name": "a", "type": "int"}])
    async with opened(registry_server.url, prefix) as (subjects, registry):
        ids = await register_all(subjects, prefix)
        foreign = await subjects.register(ours)
        codec = AvroCodec(SCHEMAS, registry)
        await codec.prepare(["results"])
        value = await AvroCodec(SCHEMAS).encode("results", FULL["results"])
        for number, code, why in (
            (2**31 - 1, "unknown_schema", "is not known there"),
            (ids["requests/v1.avsc"], "wrong_schema", "it is a record of requests"),
            (foreign, "wrong_schema", f"a record named {prefix}.R, which no topic here carries"),
        ):
            with pytest.raises(Reject, match=why) as caught:
                await codec.decode("results", Result, framed(number, value))
            assert caught.value.code == code


async def test_a_schema_that_nobody_registered_defers(registry_server: RegistryServer, prefix: str) -> None:
    """The subject is unknown; then it has another schema only. Nothing is registered unasked."""
    async with opened(registry_server.url, prefix) as (subjects, registry):
        cure = f"lacks the newest schema of r under the subject {prefix}.r-value: run `pipeline schemas register`"
        with pytest.raises(Defer, match=cure):
            await registry.id_of("r", own_schema(prefix, [{"name": "a", "type": "int"}]).text)
        await subjects.register(own_schema(prefix, [{"name": "b", "type": "int"}]))
        with pytest.raises(Defer, match=cure):
            await registry.id_of("r", own_schema(prefix, [{"name": "a", "type": "int"}]).text)


# ------------------------------------------------------------------ in trouble


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


async def deferred(codec: AvroCodec, noun: str, value: bytes) -> str:
    with pytest.raises(Defer) as caught:
        await codec.decode(noun, NOUNS[noun], value)
    return caught.value.reason


async def stranger(server: RegistryServer, noun: str, value: bytes) -> str:
    """Why a process rejects a record that starts now, so that it knows of no wipe."""
    async with open_registry(config(server.url, "p"), lambda: NOW) as registry:
        with pytest.raises(Reject) as caught:
            await AvroCodec(SCHEMAS, registry).decode(noun, NOUNS[noun], value)
    return caught.value.code


@pytest.mark.soak
@pytest.mark.within(180)
async def test_a_registry_that_stands_still_dies_and_forgets(tmp_path: Path) -> None:
    """Known schemas go on through all of it; nothing new is believed until the registry is again what it was."""
    plain = {noun: await AvroCodec(SCHEMAS).encode(noun, payload) for noun, payload in FULL.items()}
    async with embedded_registry(registry_config(tmp_path)) as server:
        async with open_subjects(config(server.url, "p"), lambda: NOW) as subjects:
            ids = await register_all(subjects, "p")
        assert sorted(ids.values()) == list(range(1, len(ids) + 1))  # so an empty one gives the same ids again
        newest = {noun: ids[f"{noun}/v{SCHEMAS.newest(noun).number}.avsc"] for noun in plain}
        values = {noun: framed(newest[noun], plain[noun]) for noun in plain}
        await stand_still(server, values["prompts"])
        backup = await asyncio.to_thread(exported, server)
        clock = Clock()
        async with open_registry(config(server.url, "p"), clock) as registry:
            codec = AvroCodec(SCHEMAS, registry)
            await codec.prepare(["results"])
            assert await codec.decode("requests", Request, values["requests"]) == FULL["requests"]

            await server.process.kill()
            assert "cannot be reached" in await deferred(codec, "prompts", values["prompts"])
            await server.restart()  # wiped
            assert "it has forgotten id" in await deferred(codec, "prompts", values["prompts"])
            assert await stranger(server, "prompts", values["prompts"]) == "unknown_schema"

            async with open_subjects(config(server.url, "p"), lambda: NOW) as subjects:
                for schema in reversed(own_schemas(SCHEMAS, "p")):  # ids are given anew, to other schemas
                    await subjects.register(schema)
            clock.now += FRESH_SECONDS
            assert "is another schema now" in await deferred(codec, "prompts", values["prompts"])
            assert await stranger(server, "prompts", values["prompts"]) == "wrong_schema"

            assert await codec.decode("requests", Request, values["requests"]) == FULL["requests"]
            assert await codec.encode("results", FULL["results"]) == values["results"]
            await server.restart()
            await asyncio.to_thread(restore, server, backup)
            for noun, value in values.items():
                assert await codec.decode(noun, NOUNS[noun], value) == FULL[noun]


async def stand_still(server: RegistryServer, value: bytes) -> None:
    """A registry that was stopped makes records wait, for as long as the time-out; continued, it answers again."""
    async with open_registry(config(server.url, "p", timeout=0.5), lambda: NOW) as registry:
        codec = AvroCodec(SCHEMAS, registry)
        os.kill(server.process.pid, signal.SIGSTOP)
        reason = await deferred(codec, "prompts", value)
        assert "has not answered within 0.5 s" in reason or "ReadTimeout" in reason
        os.kill(server.process.pid, signal.SIGCONT)
        async with asyncio.timeout(30):
            while True:
                with suppress(Defer):
                    assert await codec.decode("prompts", NOUNS["prompts"], value) == FULL["prompts"]
                    return


def exported(server: RegistryServer) -> bytes:
    """The backup of a registry, as the runbook has it."""
    with urllib.request.urlopen(f"{server.native_url}/v3/admin/export", timeout=30) as answer:
        return bytes(answer.read())


def restore(server: RegistryServer, backup: bytes) -> None:
    request = urllib.request.Request(f"{server.native_url}/v3/admin/import", data=backup, method="POST")
    request.add_header("Content-Type", "application/zip")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204

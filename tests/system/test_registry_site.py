"""Stages with a real schema registry: for our own topics, and for a table's changes that Debezium wrote as Avro."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from pipeline import wiring
from pipeline.broker.topics import TopicSpec
from pipeline.core import names
from pipeline.core.payloads import Document, Request, RetrievedContext
from pipeline.core.record import Outgoing
from pipeline.devkit.kafka import Broker
from pipeline.devkit.kafka_errors import Missing
from pipeline.devkit.registry_server import RegistryServer, embedded_registry
from tests.registry_fixture import registry_config
from tests.system.captured import CAPTURED, write
from tests.system.command import pipeline
from tests.system.site import TABLES, Site, site

pytestmark = [pytest.mark.kafka, pytest.mark.system, pytest.mark.soak]

SUBJECTS = "cdc_avro.public.documents"


@asynccontextmanager
async def _registry(folder: Path) -> AsyncIterator[RegistryServer]:
    """A registry that keeps its schemas when it is killed."""
    try:
        opened = embedded_registry(registry_config(folder, durable=True))
        async with opened as server:
            yield server
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


async def _registered(server: RegistryServer) -> dict[int, int]:
    """Register the captured schemas as the converter did; returns their ids here by their ids there."""
    ids = {}
    async with aiohttp.ClientSession() as session:
        for one in json.loads((CAPTURED / "21-avro-schemas.json").read_text()):
            body = {"schema": json.dumps(one["schema"])}
            async with session.post(f"{server.url}/subjects/{one['subject']}/versions", json=body) as answer:
                ids[one["id"]] = (await answer.json())["id"]
    return ids


def _changes(topic: str, ids: dict[int, int]) -> list[Outgoing]:
    """Read the captured records, with the schema ids of our registry."""

    def renamed(told: str | None) -> bytes | None:
        raw = None if told is None else base64.b64decode(told)
        return raw and raw[:1] + ids[int.from_bytes(raw[1:5])].to_bytes(4) + raw[5:]

    lines = (CAPTURED / "21-avro.jsonl").read_text().splitlines()
    return [
        Outgoing(
            topic,
            renamed(one["key"]),
            renamed(one["value"]),
            tuple((name, None if told is None else base64.b64decode(told)) for name, told in one["headers"]),
            one["partition"],
        )
        for one in map(json.loads, lines)
    ]


async def _cited(place: Site, questions: Sequence[tuple[str, str]]) -> dict[str, set[tuple[str, int]]]:
    """Ask questions, each of its tenant; returns which documents, in which versions, `retrieve` found for each."""
    topic = names.topic(place.prefix, "contexts", "interactive")
    found: dict[str, set[tuple[str, int]]] = {}
    async with (
        asyncio.timeout(60),
        place.desk() as desk,
        wiring.open_tail(place.configured, [topic], from_start=True) as records,
    ):
        for text, tenant in questions:
            await desk.request(Request(type="quick_answer", input=text, tenant=tenant))
        while not all(text in found for text, _ in questions):
            context = await desk.codec.decode("contexts", RetrievedContext, (await anext(records)).value or b"")
            found[context.input] = {(one.document, one.version) for one in context.passages}
    return {text: found[text] for text, _ in questions}


def _own(version: int) -> Document:
    body = f"The lantern hangs at hook {version}."
    return Document(source="notes", id="lantern", tenant="acme", title="Lantern", body=body, version=version)


@pytest.mark.within(240)
async def test_a_registry_tells_our_schemas_and_those_of_debezium(kafka: Broker, tmp_path: Path) -> None:
    """With schemas registered by the command, documents, questions and answers of all stages go by their ids, and so do
    Debezium's changes. The registry is killed, and more is written: it waits, nothing is a dead letter, and when the
    registry is back all of it is there.
    """
    topic = f"avro.{uuid4().hex[:8]}.documents"
    (tmp_path / "tables.yaml").write_text(TABLES.format(topic=topic))
    tables = str(tmp_path / "tables.yaml")
    async with (
        _registry(tmp_path / "registry") as server,
        site(kafka, tmp_path, PIPELINE_TABLES=tables, SCHEMA_REGISTRY_URL=server.url) as place,
    ):
        async with wiring.opened_admin(place.configured, lambda _: None) as admin:
            await admin.create_topics([TopicSpec(topic, 3)])
        done = await asyncio.to_thread(pipeline, "schemas", "register", folder=tmp_path, **place.environment)
        assert done.returncode == 0, done.stderr
        changes = _changes(topic, await _registered(server))
        await place.start("preprocess", "retrieve", "index")
        async with place.desk() as desk:
            await desk.document(_own(1))
        await write(place, changes[:6])
        await place.idle("index")
        asked = [("When are the opening hours?", "acme"), ("Where does the lantern hang?", "acme")]
        assert set().union(*(await _cited(place, asked)).values()) == {("doc-0001", 33703800), ("lantern", 1)}

        async with place.desk() as desk:
            await desk.document(_own(1))  # from now on it knows the schema's id
            await server.process.kill()
            await desk.document(_own(2))
            await write(place, changes[6:-1])
            # The second schema of the table is one that `index` has not asked for yet: so its record has to wait.
            await asyncio.sleep(2)
            assert await desk.lag("index")
            await server.restart()
        await place.idle("index", seconds=90)
        asked = [("When are the opening hours of winter?", "acme"), ("And where is the lantern now?", "acme")]
        assert set().union(*(await _cited(place, asked)).values()) == {("doc-0001", 33707176), ("lantern", 2)}
        await write(place, changes[-1:])
        await place.idle("index")
        (found,) = (await _cited(place, [("Are there opening hours at all?", "acme")])).values()
        assert found <= {("lantern", 2)}
        async with place.desk() as desk:
            assert await desk.dead() == 0

"""What the pipeline asks the source database itself: rows that are read again, and how fresh the index is."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.core import names
from pipeline.core.index_ports import Search
from pipeline.core.payloads import Request, RetrievedContext
from pipeline.devkit.kafka import Broker
from pipeline.devkit.postgres_programs import PostgresMissing
from tests.system import cdc_site as cdc
from tests.system.site import TABLES, Site, site

pytestmark = [pytest.mark.system, pytest.mark.kafka, pytest.mark.soak]

REREAD = """
    placeholder: {placeholder}
    reread: SELECT title, body FROM {table} WHERE id = $1
slot: documents_slot
"""
APART = """
ALTER TABLE documents_default ALTER body SET STORAGE EXTERNAL, ALTER title SET STORAGE EXTERNAL;
ALTER TABLE documents_default SET (toast_tuple_target = 128)
"""
"""Large values are stored apart from their row, as they are: an update that leaves them alone does not tell them."""

POSITION = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
"""Where the log ends, as the mapping's file says to ask it after a commit."""
COMMITS = 40


@asynccontextmanager
async def _indexed(kafka: Broker, folder: Path, table: str) -> AsyncIterator[tuple[cdc.Site, Site]]:
    """A source without a connector yet, and a site that knows one of its tables; needs PostgreSQL."""
    try:
        async with cdc.cdc_site(folder / "cdc", kafka.bootstrap_servers) as source:
            known = TABLES.format(topic=f"{source.prefix}.public.{table}")
            if table == "documents_default":
                known = known.replace("replica_identity: full", "replica_identity: default")
            mapping = folder / "tables.yaml"
            mapping.write_text(known + REREAD.format(placeholder=cdc.PLACEHOLDER, table=table))
            address = source.source.address()
            async with site(kafka, folder, PIPELINE_TABLES=str(mapping), SOURCE_DATABASE_URL=address) as place:
                yield source, place
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def _insert(name: str, title: str, text: str) -> str:
    """A row with a body of 9,000 characters."""
    body = f"'{text} ' || (SELECT string_agg(md5('{name}' || i), ' ') FROM generate_series(1, 270) i)"
    return f"INSERT INTO documents_default VALUES ('{name}', 'acme', '{title}', {body}, now())"


def _name(change: cdc.Change) -> str:
    return (change.key or {}).get("id", "")


def _left_out(change: cdc.Change) -> list[str]:
    return [column for column, value in change.side("after").items() if value == cdc.PLACEHOLDER]


@pytest.mark.within(280)
async def test_what_no_change_tells_is_read_from_the_row(kafka: Broker, tmp_path: Path) -> None:
    """A row whose snapshot was never taken, a large title, and keys that change twice before anybody looks."""
    title = "larch " + " ".join(f"word{number:03}" for number in range(100))
    async with _indexed(kafka, tmp_path, "documents_default") as (source, place):
        await source.sql(
            *APART.strip().split(";"),
            _insert("lost", "amber", "textamber"),
            _insert("titled", title, "textlarch"),
            _insert("a", "birch", "textbirch"),
            _insert("gone", "cedar", "textcedar"),
        )
        await source.connect.run("documents", source.configuration(snapshot_mode="no_data"))
        await source.sql(
            "UPDATE documents_default SET title = 'ember' WHERE id = 'lost'",
            "UPDATE documents_default SET updated_at = now() WHERE id = 'titled'",
            "UPDATE documents_default SET id = 'b' WHERE id = 'a'",
            "UPDATE documents_default SET id = 'c' WHERE id = 'b'",
            "UPDATE documents_default SET title = 'delta' WHERE id = 'gone'",
            "DELETE FROM documents_default WHERE id = 'gone'",
        )
        with closing(source.reader("documents_default")) as reader:
            changes = await reader.until(
                lambda all_: any(change.op == "d" and _name(change) == "gone" for change in all_)
            )
        untold = {_name(change): _left_out(change) for change in changes if change.op in "cu"}
        assert untold == {"lost": ["body"], "titled": ["title", "body"], "b": ["body"], "c": ["body"], "gone": ["body"]}
        await source.source.stop()
        stage = await place.start("index")
        async with place.desk() as desk:
            assert await desk.lag("index") > 0
        await source.source.restart()
        await place.idle("index", seconds=90.0)
        async with place.desk() as desk:
            assert await desk.dead() == 0
        await stage.process.terminate()
        async with wiring.open_index(place.configured) as index:
            for word, name in (("ember", "lost"), ("larch", "titled"), ("birch", "c")):
                found = await index.search(Search("acme", f"{word} text{word}", 20))
                assert {one.document for one in found} == {name}, word
            assert not await index.search(Search("acme", "cedar delta textcedar", 20))


@pytest.mark.within(280)
async def test_a_request_as_fresh_as_a_commit_is_answered_from_it(kafka: Broker, tmp_path: Path) -> None:
    """One row is changed again and again, and right after each commit somebody asks for what it holds now."""
    async with _indexed(kafka, tmp_path, "documents") as (source, place):
        await source.connect.run("documents", source.configuration(heartbeat_interval_ms="1000"))
        await source.sql("INSERT INTO documents VALUES ('shelf', 'acme', 'shelf', 'The shelf holds number 0.', now())")
        await place.start("preprocess")
        await place.start("retrieve", "index")
        async with place.desk() as desk:
            for number in range(1, COMMITS + 1):
                text = f"The shelf holds number {number}."
                await source.sql(f"UPDATE documents SET body = '{text}' WHERE id = 'shelf'")
                await desk.request(_asking(number, await source.value(POSITION)))
                await asyncio.sleep(0.1)
        found = await _contexts(place, COMMITS)
    assert set(found) == set(range(1, COMMITS + 1))
    assert [number for number, held in found.items() if held < number] == []


@pytest.mark.within(280)
async def test_a_snapshot_under_way_is_waited_for(kafka: Broker, tmp_path: Path) -> None:
    """The slot has passed all that was there before it was made, though nothing of it has come to Kafka yet."""
    rows = "SELECT 'row' || i, 'acme', 'row', 'Nothing to see.', now() FROM generate_series(1, 500) i"
    async with _indexed(kafka, tmp_path, "documents") as (source, place):
        await source.sql(f"INSERT INTO documents {rows}")
        await source.sql("INSERT INTO documents VALUES ('shelf', 'acme', 'shelf', 'The shelf holds number 1.', now())")
        position = await source.value(POSITION)
        await place.start("preprocess")
        await place.start("retrieve", "index")
        connecting = asyncio.create_task(source.connect.run("documents", source.configuration()))
        async with place.desk() as desk:
            while not await source.value("SELECT count(*) FROM pg_replication_slots"):
                await asyncio.sleep(0.02)
            for number in range(1, 6):
                await desk.request(_asking(number, position))
        await connecting
        found = await _contexts(place, 5)
    assert set(found.values()) == {1}


def _asking(number: int, position: Decimal) -> Request:
    """A request for what the shelf holds, as of a position of the log."""
    text = f"What does the shelf hold after {number}?"
    return Request(type="quick_answer", input=text, tenant="acme", as_fresh_as={"documents": int(position)})


async def _contexts(place: Site, number: int) -> Mapping[int, int]:
    """Of each request, the number in the passage that was found for it."""
    topic, found = names.topic(place.prefix, "contexts", "interactive"), dict[int, int]()
    async with place.desk() as desk, wiring.open_tail(place.configured, [topic], from_start=True) as records:
        async with asyncio.timeout(180):
            while len(found) < number:
                record = await anext(records)
                context = await desk.codec.decode("contexts", RetrievedContext, record.value or b"")
                asked = re.search(r"after (\d+)", context.input)
                held = re.search(r"number (\d+)", context.passages[0].text)
                assert asked
                assert held
                found[int(asked[1])] = int(held[1])
    return found

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.devkit.connect_rest import ConnectFailed
from pipeline.devkit.kafka import Broker
from pipeline.devkit.postgres_programs import PostgresMissing
from tests.system.cdc_site import PLACEHOLDER, REPEATS, Change, Site, cdc_site

pytestmark = [pytest.mark.system, pytest.mark.kafka, pytest.mark.soak]

SECONDS = 150.0

# Text that PostgreSQL cannot compress below the size from which it stores a column apart from its row.
LARGE = random.Random(1).randbytes(5_000).hex()

ENVELOPE = {"before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"}
SOURCE = set(
    "version connector name ts_ms snapshot db sequence ts_us ts_ns schema table txId lsn xmin origin origin_lsn".split()
)
COLUMNS = {"id", "tenant", "title", "body", "updated_at"}


@dataclass(frozen=True)
class Running:
    """A site whose connector streams, in a loop of its own: its processes belong to that loop."""

    runner: asyncio.Runner
    site: Site

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(asyncio.wait_for(work, SECONDS))


@pytest.fixture(scope="module")
def cdc(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One source, one worker and one connector for all tests of this module, each with rows of its own."""
    folder = tmp_path_factory.mktemp("cdc")

    async def begin(stack: AsyncExitStack) -> Site:
        site = await stack.enter_async_context(cdc_site(folder, kafka.bootstrap_servers, "distributed", REPEATS))
        await site.sql(insert("documents", "old", "as it was"), insert("documents_default", "old", "as it was"))
        await site.connect.run("documents", site.configuration())
        return site

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            site = runner.run(begin(stack))
        except PostgresMissing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield Running(runner, site)
        runner.run(stack.aclose())


def insert(table: str, name: str, body: str, title: str = "a title") -> str:
    return f"INSERT INTO {table} VALUES ('{name}', 'acme', '{title}', '{body}', '2026-01-05T08:00:00Z')"


def of(changes: Sequence[Change], *names: str) -> list[Change]:
    """The changes of these keys, in the order of their partitions' logs."""
    return [change for change in changes if change.key and change.key["id"] in names]


def ops(changes: Sequence[Change]) -> str:
    return "".join(change.op for change in changes)


def lsn(change: Change) -> int:
    assert change.row is not None
    return int(change.row["source"]["lsn"])


def test_a_row_that_was_there_is_a_read_and_later_ones_are_changes(cdc: Running) -> None:
    """Snapshot, insert, update, delete are as the captured records: envelope, source, times; no headers."""

    async def play() -> None:
        site = cdc.site
        await site.sql(
            insert("documents", "a", "one"),
            "UPDATE documents SET body = 'two' WHERE id = 'a'",
            "UPDATE documents SET title = title WHERE id = 'a'",
            "DELETE FROM documents WHERE id = 'a'",
        )
        with closing(site.reader("documents")) as reader:
            changes = await reader.until(lambda all_: ops(of(all_, "a")).endswith("d-") and bool(of(all_, "old")))
        read, (created, updated, same, deleted, tombstone) = of(changes, "old")[0], of(changes, "a")
        assert (read.op, read.side("after")["body"]) == ("r", "as it was")
        assert ops([created, updated, same, deleted, tombstone]) == "cuud-"
        assert created.row is not None
        assert set(created.row) == ENVELOPE
        assert set(created.row["source"]) == SOURCE
        assert set(created.side("after")) == COLUMNS
        assert created.row["before"] is None
        assert created.side("after")["updated_at"] == "2026-01-05T08:00:00.000000Z"
        assert (updated.side("before")["body"], updated.side("after")["body"]) == ("one", "two")
        assert same.side("before") == same.side("after")
        assert deleted.side("before")["tenant"] == "acme"
        assert tombstone.row is None
        assert [change.headers for change in (read, created, updated, deleted, tombstone)] == [{}] * 5
        assert lsn(created) < lsn(updated) < lsn(same) < lsn(deleted)

    cdc.run(play())


def test_a_key_change_is_a_delete_and_an_insert_that_name_each_other(cdc: Running) -> None:
    """With the whole old row as replica identity, the new key carries the large column that the update left alone."""

    async def play() -> None:
        site = cdc.site
        await site.sql(insert("documents", "b", LARGE), "UPDATE documents SET id = 'b2' WHERE id = 'b'")
        with closing(site.reader("documents")) as reader:
            changes = await reader.until(lambda all_: ops(of(all_, "b")) == "cd-" and ops(of(all_, "b2")) == "c")
        _, deleted, tombstone = of(changes, "b")
        (created,) = of(changes, "b2")
        assert deleted.headers == tombstone.headers == {"__debezium.newkey": '{"id":"b2"}'}
        assert created.headers == {"__debezium.oldkey": '{"id":"b"}'}
        assert created.side("after")["body"] == LARGE
        assert lsn(deleted) == lsn(created)

    cdc.run(play())


def test_without_the_old_row_a_large_column_is_our_own_placeholder(cdc: Running) -> None:
    """A table with the default replica identity: no `before`, our placeholder for what was left alone, even under a new
    key; and a delete that has lost its tenant.
    """

    async def play() -> None:
        site, table = cdc.site, "documents_default"
        await site.sql(
            insert(table, "c", LARGE),
            f"UPDATE {table} SET title = 'another' WHERE id = 'c'",
            f"UPDATE {table} SET id = 'c2' WHERE id = 'c'",
            f"DELETE FROM {table} WHERE id = 'c2'",
        )
        with closing(site.reader(table)) as reader:
            changes = await reader.until(lambda all_: ops(of(all_, "c")) == "cud-" and ops(of(all_, "c2")) == "cd-")
        _, updated, *_ = of(changes, "c")
        moved, deleted, _ = of(changes, "c2")
        assert updated.row is not None
        assert updated.row["before"] is None
        assert (updated.side("after")["title"], updated.side("after")["body"]) == ("another", PLACEHOLDER)
        assert moved.side("after")["body"] == PLACEHOLDER
        assert deleted.side("before") == {"id": "c2"} | dict.fromkeys(COLUMNS - {"id"})

    cdc.run(play())


def test_a_truncate_is_a_record_without_a_key(cdc: Running) -> None:
    """It is not dropped, as it would be by default; no tombstones come with it."""

    async def play() -> None:
        site = cdc.site
        await site.sql(insert("documents_default", "d", "gone"), "TRUNCATE documents_default")
        with closing(site.reader("documents_default")) as reader:
            changes = await reader.until(lambda all_: any(change.op == "t" for change in all_))
            (truncated,) = (change for change in changes if change.op == "t")
            assert truncated.row is not None
            assert (truncated.key, truncated.row["before"], truncated.row["after"]) == (None, None, None)
            await site.sql(insert("documents_default", "d", "again"))
            changes = await reader.until(lambda all_: len(of(all_, "d")) > 1)
        assert ops(of(changes, "d")) == "cc"

    cdc.run(play())


def test_a_body_of_two_megabytes_passes_and_so_does_its_update(cdc: Running) -> None:
    """An update carries the text twice: four megabytes, where the limits of Kafka's own are one."""

    async def play() -> None:
        site, body = cdc.site, random.Random(2).randbytes(1_000_000).hex()
        await site.sql(insert("documents", "e", body), "UPDATE documents SET title = 'new' WHERE id = 'e'")
        with closing(site.reader("documents")) as reader:
            changes = await reader.until(lambda all_: ops(of(all_, "e")) == "cu")
        created, updated = of(changes, "e")
        assert created.side("after")["body"] == updated.side("before")["body"] == updated.side("after")["body"] == body
        await site.sql("DELETE FROM documents WHERE id = 'e'")

    cdc.run(play())


def test_a_worker_that_was_killed_repeats_but_loses_nothing(cdc: Running) -> None:
    """kill -9 while single rows stream: each row comes, what comes again says the same, and keys keep their order. A
    transaction that was open all the while, heartbeats of larger addresses after it, is not skipped either.
    """

    async def play() -> None:
        site, names = cdc.site, [f"f{number}" for number in range(300)]

        async def write() -> None:
            for name in names:
                await site.sql(
                    insert("documents", name, "one"), f"UPDATE documents SET body = 'two' WHERE id = '{name}'"
                )

        with closing(site.reader("documents")) as reader:
            async with site.open_transaction(insert("documents", "open", "one")):
                await site.until_passed()
                writing = asyncio.create_task(write())
                await reader.until(lambda all_: len(of(all_, *names)) > 100)
                await site.kill()
            await site.connect.restart()
            await site.connect.until_streaming("documents")
            await writing
            changes = await reader.until(
                lambda all_: {"u"} == {ops(of(all_, name))[-1:] for name in names} and bool(of(all_, "open"))
            )
        for name in names:
            events = {lsn(change): (change.op, change.side("after")) for change in of(changes, name)}
            assert [op for _, (op, _) in sorted(events.items())] == ["c", "u"]
            for change in of(changes, name):
                assert events[lsn(change)] == (change.op, change.side("after"))

    cdc.run(play())


def test_a_source_that_crashed_is_followed_on_from_where_it_was(cdc: Running) -> None:
    """PostgreSQL ends at once and comes back: nobody has to do anything, and nothing is missing."""

    async def play() -> None:
        site = cdc.site
        await site.sql(insert("documents", "g", "before"))
        await site.source.crash()
        await site.source.restart()
        await site.sql(insert("documents", "g2", "after"))
        with closing(site.reader("documents")) as reader:
            changes = await reader.until(lambda all_: bool(of(all_, "g") and of(all_, "g2")))
        assert set(ops(of(changes, "g", "g2"))) == {"c"}
        assert (await site.connect.status("documents")).running

    cdc.run(play())


def test_writes_to_other_tables_do_not_make_the_source_keep_its_log(cdc: Running) -> None:
    """The connector's heartbeats move its slot over what it has no interest in, with no right but to read."""

    async def play() -> None:
        site = cdc.site
        await site.sql("INSERT INTO other SELECT generate_series(1, 10000)")
        await site.until_passed()

    cdc.run(play())


def test_a_failed_connector_says_why_and_is_started_again(cdc: Running) -> None:
    """A publication that is missing: the error names it; once it is there, whoever tends the connector starts it."""

    async def play() -> None:
        site = cdc.site
        own = site.configuration(publication_name="late", slot_name="late_slot", topic_prefix=f"{site.prefix}late")
        with pytest.raises(ConnectFailed, match=r"The connector late has failed: .*[Pp]ublication.*log is"):
            await site.connect.run("late", own)
        await site.sql("CREATE PUBLICATION late FOR TABLE documents, documents_default")
        told: list[str] = []
        tending = asyncio.create_task(site.connect.tend("late", told.append))
        while not (await site.connect.status("late")).running:
            await asyncio.sleep(0.1)
        await site.connect.until_streaming("late")
        tending.cancel()
        assert "starting it again" in told[0]
        await site.connect.delete("late")
        while (await site.connect.status("late")).connector != "UNKNOWN":
            await asyncio.sleep(0.1)

    cdc.run(play())


def test_a_wrong_configuration_is_refused_at_once(cdc: Running) -> None:
    """The worker's own words are passed on, and no connector is left behind."""

    async def play() -> None:
        wrong = cdc.site.configuration(poll_interval_ms="often")
        with pytest.raises(ConnectFailed, match=r"poll\.interval\.ms"):
            await cdc.site.connect.run("wrong", wrong)
        assert (await cdc.site.connect.status("wrong")).connector == "UNKNOWN"

    cdc.run(play())

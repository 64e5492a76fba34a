from __future__ import annotations

import asyncio
import os
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.devkit.kafka import Broker
from pipeline.devkit.postgres_programs import PostgresMissing
from tests.system.cdc_site import Site, cdc_site

pytestmark = [pytest.mark.system, pytest.mark.kafka, pytest.mark.soak]


@pytest.mark.within(180)
async def test_a_distributed_worker_that_was_killed_repeats_nothing(kafka: Broker, tmp_path: Path) -> None:
    """distributed.properties, exactly once: after kill -9 each row is there once for a reader of what is committed."""
    try:
        async with cdc_site(tmp_path, kafka.bootstrap_servers, "distributed") as site:
            await _kill_in_flow(site)
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


async def _kill_in_flow(site: Site) -> None:
    names = [f"n{number}" for number in range(300)]
    await site.connect.run("documents", site.configuration() | {"exactly.once.support": "required"})
    with closing(site.reader("documents", "read_committed")) as reader:
        rows = (f"INSERT INTO documents VALUES ('{name}', 'acme', 't', 'b')" for name in names)
        writing = asyncio.create_task(site.sql(*rows))
        await reader.until(lambda all_: len(all_) > 60)
        await site.kill()
        await site.connect.restart()
        await site.connect.until_streaming("documents")
        await writing
        changes = await reader.until(lambda all_: len({str(change.key) for change in all_}) == len(names))
    assert len(changes) == len(names)

"""The demo of change-data capture: a question whose answer changes with a row of a database, and goes with it.

The sample documents are rows of a table. One of them is edited, then deleted, by plain SQL; nobody tells the pipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from pipeline.core.payloads import Request
from pipeline.devkit import samples
from pipeline.devkit.demo import Pipeline, arrived
from pipeline.devkit.postgres import Postgres
from pipeline.devkit.receiver import Receiver

SAMPLE = "pickup-time"
"""The sample request that is asked."""

_EDIT = "UPDATE documents SET body = replace(body, '{}', '{}'), updated_at = now() WHERE id = '{}'"
_DELETE = "DELETE FROM documents WHERE id = '{}'"
_AFTER = "96 hours"

_TABLE = """
CREATE TABLE public.documents (id text PRIMARY KEY, tenant text, title text, body text, updated_at timestamptz)
"""
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One look at the answer. `seconds` is from the commit of `sql` to the webhook of the first answer that fits it;
    where none came in time, `right` is false and the answer is the last one.
    """

    sql: str
    answer: str
    citations: tuple[str, ...]
    seconds: float
    right: bool


@dataclass(frozen=True, slots=True)
class _Expected:
    """When an answer fits the state of the row: what it says, and whether it may cite the document."""

    contains: str
    cited: bool

    def fits(self, answer: str, citations: Sequence[str], document: str) -> bool:
        return self.contains in answer and (document in citations) == self.cited


async def fill(source: Postgres, script: str) -> int:
    """Make the table with the sample documents, and let the connector read it; returns the number of rows.

    `script` is the text of source.sql, run by the owner of the table.
    """
    rows = [(one.id, one.tenant, one.title, one.body) for one in samples.documents()]
    connection = await asyncpg.connect(source.address())
    try:
        await connection.execute(_TABLE)
        await connection.executemany("INSERT INTO documents VALUES ($1, $2, $3, $4, now())", rows)
        await connection.execute(script)
    finally:
        await connection.close()
    return len(rows)


@dataclass(frozen=True, slots=True)
class CdcDemo:
    """Drives a running pipeline whose index follows `source`. `wait_seconds` bounds the wait for each change."""

    pipeline: Pipeline
    receiver: Receiver
    source: Postgres
    wait_seconds: float = 60.0

    async def play(self) -> list[Step]:
        """Ask, edit the row and ask again, delete it and ask again."""
        asked = next(one for one in samples.requests() if one.id == SAMPLE)
        document, before = asked.expect.document, asked.expect.contains[0]
        changes = (
            ("", _Expected(before, cited=True)),
            (_EDIT.format(before, _AFTER, document), _Expected(_AFTER, cited=True)),
            (_DELETE.format(document), _Expected("", cited=False)),
        )
        return [await self._step(sql, expected, document) for sql, expected in changes]

    async def _step(self, sql: str, expected: _Expected, document: str) -> Step:
        if sql:
            await self._execute(sql)
        began = time.time()
        while True:
            at, answer, citations = await self._ask()
            right = expected.fits(answer, citations, document)
            if right or time.time() - began > self.wait_seconds:
                return Step(sql, answer, citations, at - began, right)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.source.address())
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def _ask(self) -> tuple[float, str, tuple[str, ...]]:
        """Ask once; when the answer was delivered, the answer, and the documents that it cites."""
        sample = next(one for one in samples.requests() if one.id == SAMPLE)
        name = f"{SAMPLE}-{len(self.receiver.received)}"
        request = Request(
            type=sample.type, input=sample.input, id=name, tenant=sample.tenant, metadata={"sample": name}
        )
        await self.pipeline.request(request)
        async with asyncio.timeout(self.wait_seconds):
            while name not in arrived(self.receiver):  # noqa: ASYNC110  # the receiver rings no bell
                await asyncio.sleep(0.02)
        at, body = arrived(self.receiver)[name]
        data = body["data"]
        if body.get("type") != "job.completed":
            return at, str(data.get("reason", "")), ()
        return at, data["answer"], tuple(dict.fromkeys(str(one["document"]) for one in data["citations"]))

"""P9: how soon an edit of a row in PostgreSQL is found, through Debezium, Kafka and the index stage."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import asyncpg

from pipeline.clients.passage_live import LivePassages
from pipeline.core.event import Event
from pipeline.core.index_ports import Search
from pipeline.core.payloads import Document
from pipeline.core.stage import Context
from pipeline.devkit.connect_rest import ConnectFailed
from pipeline.devkit.postgres_programs import PostgresMissing
from tests.bench.failure import Failed
from tests.bench.figures import Figure, at_most
from tests.bench.index_stage import TENANT, DocumentHandler, index_stage, opened_index, prose
from tests.bench.lab import Stand
from tests.system.cdc_site import Site, cdc_site

ROWS, SENTENCES = 100, 7
"""How many rows there are, and how long their texts: one chunk each."""
EDITS, RATE = 40, 5.0
"""How many rows are edited in a round, and how many a second: one after the other, each in a transaction."""
LAST_SECONDS = 30.0
_WARM_UP = 10
_TABLE = "documents"


@dataclass(frozen=True, slots=True)
class Times:
    """When an edit was committed, stood on its topic, and was found, in seconds since the epoch."""

    committed: float
    written: float
    found: float

    @property
    def whole(self) -> float:
        """From the commit to the first query that finds it, in seconds."""
        return self.found - self.committed


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks the index, after each event that was handled, for the word that the text begins with."""

    index: LivePassages
    times: dict[str, Times] = field(default_factory=dict)

    def around(self, handler: DocumentHandler) -> DocumentHandler:
        """Watch `handler`."""

        async def watched(event: Event[Document], ctx: Context) -> Sequence[Any]:
            outputs = await handler(event, ctx)
            word = event.payload.body.partition(" ")[0]
            found = await self.index.search(Search(TENANT, word, 1))
            if found and word in found[0].text:
                committed = (event.payload.committed_at_ms or 0) / 1000
                self.times[word] = Times(committed, event.origin.timestamp_ms / 1000, time.time())
            return outputs

        return watched

    async def until(self, words: Sequence[str], seconds: float) -> list[Times]:
        """Wait until all of `words` are found. Raises Failed where they are not."""
        end = time.monotonic() + seconds
        while missing := [word for word in words if word not in self.times]:
            if time.monotonic() > end:
                raise Failed(f"{len(missing)} of {len(words)} edits were not found within {seconds:g} s")
            await asyncio.sleep(0.05)
        return [self.times[word] for word in words]


async def searchable(stand: Stand) -> list[Figure]:
    """P9-searchable: from the commit of an edit in PostgreSQL to a query that finds it, at 5 edits a second."""
    try:
        async with cdc_site(stand.lab.path("cdc"), stand.servers) as site:
            rounds = await _edited(stand, site)
    except (PostgresMissing, ConnectFailed) as error:
        raise Failed(str(error)) from None
    told = f"from the commit in PostgreSQL until a query finds it, at {RATE:g} edits/s (absolute)"
    figures = []
    for goal, share in ((0.5, 50), (1.5, 99)):
        seconds = [_quantile([one.whole for one in times], share) for times in rounds]
        figures.append(at_most(f"P9-searchable-p{share}", f"p{share} of seconds {told}", goal, seconds, "s"))
    return figures


async def _edited(stand: Stand, site: Site) -> list[list[Times]]:
    count = 10 if stand.lab.quick else EDITS
    async with opened_index(stand.lab.path("index")) as index:
        bodies, passages = _bodies(), index.live()
        watch = Watch(passages)
        connection = await asyncpg.connect(site.source.address())
        try:
            rows = [(name, TENANT, name, f"{name} {body}") for name, body in bodies.items()]
            await connection.executemany(f"INSERT INTO {_TABLE} VALUES ($1, $2, $3, $4, now())", rows)
            await site.connect.run(_TABLE, site.configuration(table_include_list=f"public.{_TABLE}"))
            topic = f"{site.prefix}.public.{_TABLE}"
            async with index_stage(stand, topic, passages, watch.around):
                await watch.until(list(bodies), LAST_SECONDS + ROWS / 4)
                await _round(connection, watch, bodies, _WARM_UP)
                rounds = []
                for number in range(1, stand.lab.rounds + 1):
                    rounds.append(await _round(connection, watch, bodies, count))
                    _tell(f"{number}/{stand.lab.rounds}", rounds[-1])
        finally:
            await connection.close()
    _tell("all", [one for times in rounds for one in times])
    return rounds


async def _round(connection: Any, watch: Watch, bodies: Mapping[str, str], count: int) -> list[Times]:
    """Edit one sentence of some rows, evenly over the time but for chance."""
    draw = random.Random(len(watch.times))
    edits = {f"{name}x{len(watch.times)}": name for name in draw.sample(list(bodies), count)}
    for word, name in edits.items():
        edit = f"UPDATE {_TABLE} SET body = $1, updated_at = now() WHERE id = $2"
        await connection.execute(edit, f"{word} {bodies[name]}", name)
        await asyncio.sleep(draw.uniform(0.5, 1.5) / RATE)
    return await watch.until(list(edits), LAST_SECONDS)


def _bodies() -> dict[str, str]:
    draw = random.Random(12)
    return {f"row{number:04d}": prose(draw, SENTENCES) for number in range(ROWS)}


def _quantile(seconds: Sequence[float], share: int) -> float:
    return quantiles(seconds, n=100, method="inclusive")[share - 1]


def _tell(which: str, times: Sequence[Times]) -> None:
    parts = {
        "commit to query": [one.whole for one in times],
        "to Kafka": [one.written - one.committed for one in times],
        "then to query": [one.found - one.written for one in times],
    }
    told = (f"{name} p50 {_ms(seconds, 50)} p99 {_ms(seconds, 99)} ms" for name, seconds in parts.items())
    print(f"  {which:<6} {'; '.join(told)}", flush=True)


def _ms(seconds: Sequence[float], share: int) -> str:
    return f"{_quantile(seconds, share) * 1000:.0f}"

"""One run: a broker of its own, workers, a nemesis, a writer; then the healing, the reading and the judgement."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from pipeline.broker.admin import Admin, open_admin
from pipeline.broker.config import GroupProtocol
from pipeline.broker.kafka import open_producer
from pipeline.core import names
from pipeline.core.ports import Delivered, Producer
from pipeline.core.record import Partition, Position
from pipeline.devkit.kafka import Broker, EmbeddedKafkaConfig, embedded_kafka
from tests.system.workload.checker import Violation, check
from tests.system.workload.history import History, Sample
from tests.system.workload.nemesis import Nemesis
from tests.system.workload.notes import Author
from tests.system.workload.reading import Log, Stand, read
from tests.system.workload.report import report
from tests.system.workload.schedule import schedule
from tests.system.workload.variants import NOTES, Variant, topics
from tests.system.workload.worker import Order

PARTITIONS, KEYS = 4, 6
WORKERS = 3
LOOKS = 3
_LOOK_SECONDS = 0.5
_SAMPLE_SECONDS = 1.0
# In bursts, so that records of one key stand together.
_WRITE_SECONDS = 0.5
_PREFIX = "workload"


@dataclass(frozen=True, slots=True)
class Setting:
    """What one run is like. `seconds` is how long the nemesis rages, `rate` how many notes are written a second.

    `patience` is how long the lag may take to get back to 0 afterwards. Logs go into `folder`.
    """

    seed: int
    seconds: float
    folder: Path
    kafka: EmbeddedKafkaConfig
    variants: Sequence[Variant]
    protocol: GroupProtocol = "consumer"
    rate: float = 40.0
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended: what was wrong, the whole report about it, and the figures in one line."""

    found: Sequence[Violation]
    report: str
    summary: str


async def run(setting: Setting) -> Verdict:
    """Make one run and judge it."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(embedded_kafka(setting.kafka))
        variants = tuple(variant.name for variant in setting.variants)
        order = Order(broker.bootstrap_servers, _PREFIX, setting.protocol, variants)
        admin = await stack.enter_async_context(open_admin(order.kafka))
        await admin.create_topics(topics(setting.variants, _PREFIX, PARTITIONS))
        nemesis = Nemesis(broker, order, setting.folder)
        stack.push_async_callback(nemesis.kill)
        field = _Field(setting, broker, admin, nemesis)
        await field.rage(await stack.enter_async_context(open_producer(order.kafka)))
        await field.heal()
        found, figures = await field.judge()
    text = report(setting.seed, nemesis.deeds, found, setting.folder) if found else ""
    summary = f"seed {setting.seed}, {setting.protocol} groups, {time.monotonic() - began:.0f} s: {figures}"
    return Verdict([violation for _, violation in found], text, summary)


class _Field:
    """The state of one run."""

    def __init__(self, setting: Setting, broker: Broker, admin: Admin, nemesis: Nemesis) -> None:
        self._setting = setting
        self._broker = broker
        self._admin = admin
        self._nemesis = nemesis
        self._plans = {variant.name: variant.plan(_PREFIX) for variant in setting.variants}
        self._samples: dict[str, list[Sample]] = {name: [] for name in self._plans}
        self._lags: dict[str, list[Mapping[Partition, int]]] = {name: [] for name in self._plans}
        self._acknowledged: set[str] = set()
        self._refused: list[str] = []
        self._healed = asyncio.Event()
        self._healing = 0.0

    # -------------------------------------------------------------- the parts of a run

    async def rage(self, producer: Producer) -> None:
        """Write, and let the nemesis do its work meanwhile."""
        setting = self._setting
        for number in range(WORKERS):
            await self._nemesis.start(f"w{number + 1}")
        self._sampling = asyncio.create_task(self._sample())
        steps = schedule(setting.seed, setting.seconds, WORKERS)
        await asyncio.gather(self._write(producer), self._nemesis.follow(steps, setting.seconds))
        await self._nemesis.heal(WORKERS)
        left = await producer.flush(setting.patience)
        if left:
            self._refused.append(f"{left} notes were not acknowledged {setting.patience:g} s after the healing")

    async def heal(self) -> None:
        """Wait until nothing is left to do, look whether it stays so, and let the workers leave."""
        await self._until_done()
        self._healed.set()
        await self._sampling
        for _ in range(LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()
        await self._nemesis.end()
        await self._look()

    async def judge(self) -> tuple[list[tuple[History | None, Violation]], str]:
        """Read everything from the beginning and check it; returns what is wrong, and figures."""
        wanted = [spec.name for spec in topics(self._setting.variants, _PREFIX, PARTITIONS)]
        servers = self._broker.bootstrap_servers
        everything = await asyncio.to_thread(read, servers, wanted, "read_uncommitted")
        committed = await asyncio.to_thread(read, servers, wanted, "read_committed")
        found: list[tuple[History | None, Violation]] = [(None, one) for one in self._nemesis.complaints()]
        found += [(None, Violation("refused", text)) for text in self._refused]
        found += [(None, one) for one in _unfinished(everything, committed)]
        visible = frozenset(record.position for record in committed.records)
        for variant in self._setting.variants:
            history = self._history(variant, everything, visible)
            found += [(history, violation) for violation in check(history)]
        return found, self._figures(everything, len(visible))

    # -------------------------------------------------------------- while it runs

    async def _write(self, producer: Producer) -> None:
        setting, chance = self._setting, random.Random(self._setting.seed)
        author = Author(names.topic(_PREFIX, NOTES), NOTES, PARTITIONS, KEYS)
        loop = asyncio.get_running_loop()
        begin, number = loop.time(), 0
        while (passed := loop.time() - begin) < setting.seconds:
            while number < passed * setting.rate:
                note = author.note(number, chance)
                producer.send(author.record(note, time.time()), self._hearing(note.name))
                number += 1
            await asyncio.sleep(_WRITE_SECONDS)

    def _hearing(self, name: str) -> Delivered:
        def delivered(error: Exception | None) -> None:
            if error is None:
                self._acknowledged.add(name)
            else:
                self._refused.append(f"the broker refused {name}: {error}")

        return delivered

    async def _sample(self) -> None:
        stand = Stand(self._broker.bootstrap_servers)
        while not self._healed.is_set():
            for name, bound in self._plans.items():
                parts = [Partition(topic, number) for topic in bound.topics for number in range(PARTITIONS)]
                try:
                    committed = await asyncio.to_thread(stand.of, bound.group, parts)
                    at = self._nemesis.now
                    results = [*bound.tiers, bound.output_topic(None), bound.dead_letters, bound.failures]
                    ends = await self._admin.end_offsets(results)
                    if len(ends) == len(results) * PARTITIONS:  # else some have no leader just now
                        self._samples[name].append(Sample(at, committed, ends))
                except KafkaException:
                    continue  # the broker is down: look again later
            await asyncio.sleep(_SAMPLE_SECONDS)
        await asyncio.to_thread(stand.close)

    async def _until_done(self) -> None:
        """Wait until the lag is 0 at two looks in succession: a single one may miss a record between two topics."""
        begin, quiet = self._nemesis.now, 0
        while quiet < 2 and self._nemesis.now < begin + self._setting.patience:
            lags = [await self._lag(name) for name in self._plans]
            quiet = 0 if any(any(lag.values()) for lag in lags) else quiet + 1
            await asyncio.sleep(_LOOK_SECONDS)
        self._healing = self._nemesis.now - begin

    async def _look(self) -> None:
        for name in self._plans:
            self._lags[name].append(await self._lag(name))

    async def _lag(self, name: str) -> Mapping[Partition, int]:
        return await self._admin.lag(self._plans[name].group, self._plans[name].topics)

    # -------------------------------------------------------------- afterwards

    def _history(self, variant: Variant, everything: Log, visible: frozenset[Position]) -> History:
        bound = self._plans[variant.name]
        mine = {*bound.topics, bound.output_topic(None), bound.dead_letters, bound.failures}
        return History(
            variant,
            bound,
            [record for record in everything.records if record.topic in mine],
            visible,
            frozenset(self._acknowledged) if variant.source == NOTES else None,
            self._samples[variant.name],
            self._lags[variant.name],
        )

    def _figures(self, everything: Log, visible: int) -> str:
        counts = Counter(record.topic for record in everything.records)
        outputs = ", ".join(
            f"{name} {counts[bound.output_topic(None)]} + {sum(counts[tier] for tier in bound.tiers)} copies"
            for name, bound in self._plans.items()
        )
        samples = sum(len(samples) for samples in self._samples.values())
        deeds = len(self._nemesis.deeds)
        return (
            f"{len(self._acknowledged)} notes, outputs: {outputs}; {len(everything.records) - visible} aborted,"
            f" {samples} samples, {deeds} deeds, nothing left {self._healing:.0f} s after them"
        )


def _unfinished(everything: Log, committed: Log) -> list[Violation]:
    """Look for transactions that nobody has ended: a read_committed reader gets no further."""
    return [
        Violation("open transaction", f"{part.topic}/{part.number} ends at {end}, but at {there} for read_committed")
        for part, end in everything.ends.items()
        if (there := committed.ends[part]) < end
    ]

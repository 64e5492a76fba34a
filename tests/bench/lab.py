"""Where benchmarks run: programs in processes of their own, and on a stand a broker with records."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from uuid import uuid4

from pipeline.broker.admin import Admin, TopicSpec, open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.devkit.guard import Command, GuardedProcess
from pipeline.devkit.kafka import embedded_kafka
from pipeline.runtime.plan import plan
from tests.bench import meter
from tests.bench.failure import Failed, failed
from tests.bench.input import PARTITIONS, fill
from tests.bench.meter import Sample
from tests.bench.order import Order
from tests.bench.worker import declared
from tests.kafka_fixture import kafka_config

PROGRAM_SECONDS = 120.0

_SOON_GONE = {"file.delete.delay.ms": "1000"}


@dataclass(frozen=True, slots=True)
class Lab:
    """A folder for what is measured, and how long to measure. `quick` only shows that everything works."""

    folder: Path
    rounds: int
    quick: bool
    missing: list[str] = field(default_factory=list)

    def miss(self, sentence: str) -> None:
        """Tell of a part that could not be measured, where the rest goes on."""
        self.missing.append(sentence)
        print(sentence, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """How long one run of a variant is measured."""
        return 0.5 if self.quick else 3.0

    @property
    def records(self) -> int:
        """How many records the variants find."""
        return 30_000 if self.quick else 200_000

    def path(self, name: str) -> Path:
        """Name a file that nobody has named before."""
        return self.folder / f"{name}-{time.monotonic_ns()}"

    async def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        limit: float = PROGRAM_SECONDS,
    ) -> float:
        """Run a program to its end, with our environment and in our folder unless told; returns the seconds it took.

        It is killed after `limit` seconds. Raises Failed.
        """
        output = self.path("output")
        began = time.perf_counter()
        process = GuardedProcess(Command(tuple(arguments), environment, folder, output))
        async with process:
            try:
                code = await asyncio.wait_for(process.wait(), limit)
            except TimeoutError:
                code = await process.kill()
        seconds = time.perf_counter() - began
        if code != 0:
            raise failed(arguments, f"ended with {code} after {seconds:.0f} s", output)
        return seconds


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the programs that take turns: its name, what runs it, and its order, completed by the stand.

    `program` gets what `told` makes of its order as its last argument, and leaves its Sample in `order.result`. Where
    one that is `optional` fails, the others go on.
    """

    name: str
    program: tuple[str, ...]
    order: Order
    optional: bool = False

    def told(self, order: Order) -> str:
        """Spell the order as the program reads it."""
        return order.argument()

    @classmethod
    def module(cls, name: str, module: str, order: Order) -> Variant:
        """Make a variant of a module of this project."""
        return cls(name, (sys.executable, "-m", module), order)


@dataclass(frozen=True, slots=True)
class Stand:
    """A broker, and a topic on it with `lab.records` records."""

    lab: Lab
    servers: str
    prefix: str
    admin: Admin

    def order(self) -> Order:
        """Make an order for this stand."""
        return Order(
            servers=self.servers,
            prefix=self.prefix,
            output_prefix=self.prefix,
            seconds=self.lab.seconds,
            available=self.lab.records,
            result=self.lab.folder / "result.json",
        )

    @asynccontextmanager
    async def topics(self, names: Iterable[str], partitions: int = PARTITIONS) -> AsyncIterator[None]:
        """Make topics for a while."""
        made = list(names)
        await self.admin.create_topics(TopicSpec(name, partitions, _SOON_GONE) for name in made)
        try:
            yield
        finally:
            await self.admin.delete_topics(made)

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Order]:
        """Make topics that are empty, and an order for them."""
        prefix = f"bench-{uuid4().hex[:8]}"
        order = replace(self.order(), prefix=prefix, output_prefix=prefix, result=self.lab.path("result"))
        async with self.topics([*plan(declared(order), prefix).topics, order.output]):
            yield order

    async def written(self, topic: str) -> int:
        """Count the records that were written to a topic."""
        return sum((await self.admin.end_offsets([topic])).values())

    async def measure(self, variants: Sequence[Variant]) -> Mapping[str, Sequence[Sample]]:
        """Let variants take turns, in another order each round; returns the samples of each, by round."""
        chance, samples = random.Random(3), {variant.name: list[Sample]() for variant in variants}
        for number in range(1, self.lab.rounds + 1):
            for variant in chance.sample(variants, len(variants)):
                if variant.name in samples and not await self._turn(variant, samples[variant.name], number):
                    del samples[variant.name]
        for name, found in samples.items():
            _tell("median", name, found)
        return samples

    async def _turn(self, variant: Variant, samples: list[Sample], number: int) -> bool:
        try:
            samples.append(await self._once(variant))
        except Failed as error:
            if not variant.optional:
                raise
            self.lab.miss(f"{variant.name} is left out: {error}")
            return False
        _tell(f"{number}/{self.lab.rounds}", variant.name, samples[-1:])
        return True

    async def _once(self, variant: Variant) -> Sample:
        order = replace(variant.order, output_prefix=f"{self.prefix}-{time.monotonic_ns()}")
        async with self.topics([order.output]):
            await self.lab.run((*variant.program, variant.told(order)))
            sample = meter.read(order.result)
            order.result.unlink()
            written = await self.written(order.output)
        if written < sample.records:
            raise Failed(f"{variant.name} says that it moved {sample.records} records, but only {written} arrived")
        return sample


def _tell(which: str, name: str, samples: Sequence[Sample]) -> None:
    rate, cpu = median(one.rate for one in samples), median(one.cpu_us for one in samples)
    print(f"  {which:<6} {name:<18} {rate:>9,.0f} records/s {cpu:>7.1f} us CPU a record", flush=True)


@asynccontextmanager
async def open_stand(lab: Lab, bootstrap_servers: str | None) -> AsyncIterator[Stand]:
    """Start a broker, unless one is named, and write what the variants read."""
    async with embedded_kafka(kafka_config(lab.folder / "kafka", bootstrap_servers)) as broker:
        servers = broker.bootstrap_servers
        async with open_admin(KafkaConfig({"bootstrap.servers": servers})) as admin:
            stand = Stand(lab, servers, f"bench-{uuid4().hex[:8]}", admin)
            async with stand.topics(plan(declared(stand.order()), stand.prefix).topics):
                print(f"writing {lab.records:,} records", flush=True)
                await fill(servers, stand.order().input, lab.records)
                yield stand

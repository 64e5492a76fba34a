"""A world for replays: a broker in memory, the pipeline's topics, dead letters in them, and replays that may die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.broker.memory_transactions import MemoryTransactions
from pipeline.broker.topics import TopicSpec
from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.deadletter import Grave, dead_headers
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.letter import LetterHead, read_head
from pipeline.core.payloads import Audit, Payload, RetrievedContext
from pipeline.core.ports import Clock
from pipeline.core.record import Headers, Outgoing, Partition, Position, Record
from pipeline.core.replay import Rules
from pipeline.core.trace import root
from pipeline.devkit.clock import EPOCH, wall
from pipeline.ops.letter_states import Book
from pipeline.ops.replay import Replays, group
from pipeline.ops.replay_journal import Journal
from pipeline.ops.replay_letters import Known
from pipeline.ops.replay_plan import Plan, Planner, Wanted
from pipeline.ops.replay_run import Report, Run
from pipeline.ops.replay_work import Person, Steps
from pipeline.resources import resource
from pipeline.settings_catalog import load_catalog
from pipeline.topology import STAGES, topic_specs
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

PARTITIONS = 2
PREFIX = "p"
CODEC = AvroCodec(load_schemas(resource("schemas")))
CATALOG: Catalog = load_catalog(resource("deploy", "catalog.yaml"))
ANN = Person("ann", "the model is back")
NOUNS = {"infer": "contexts.standard", "retrieve": "prompts", "preprocess": "requests", "index": "documents"}
CONTEXT = RetrievedContext(input="What time is it?")


class Killed(BaseException):
    """A process was killed here."""


class Mortal(Awaitable[Any]):
    """Runs a coroutine, and kills it at its await number `last`: nothing of it runs any more, no `finally` either."""

    dead: list[Coroutine[Any, Any, Any]] = []  # noqa: RUF012  # kept, as one that is collected would be closed

    def __init__(self, work: Coroutine[Any, Any, Any], last: int) -> None:
        """Do nothing yet."""
        self._work = work
        self._last = last

    def __await__(self) -> Generator[Any, Any, Any]:
        """Go on with each await, until the last."""
        error: BaseException | None = None
        for step in count():
            if step == self._last:
                self.dead.append(self._work)
                raise Killed
            try:
                waits_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            try:
                yield waits_for
                error = None
            except asyncio.CancelledError as cancelled:
                error = cancelled
        raise AssertionError


async def mortal(work: Coroutine[Any, Any, Any], last: int) -> bool:
    """Run in a task, and say whether it came to its end before it was killed."""

    async def live() -> None:
        await Mortal(work, last)

    others = asyncio.all_tasks()
    try:
        await asyncio.create_task(live())
    except Killed:
        for task in asyncio.all_tasks() - others:
            task.cancel()
        return False
    return True


@dataclass
class Process:
    """One process that replays."""

    known: Known
    journal: Journal
    transactions: MemoryTransactions
    plan: Plan
    stop: asyncio.Event
    run: Run

    async def go(self, *, resumed: bool = False, take_over: bool = False) -> Report:
        """Run it."""
        return await self.run.run({}, resumed=resumed, take_over=take_over)


@dataclass
class Site:
    """The topics, and what a test asks of them."""

    broker: MemoryBroker
    clock: Clock = wall
    told: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    @classmethod
    async def make(cls, clock: Clock = wall, **times: float) -> Site:
        """Create all topics."""
        site = cls(MemoryBroker(clock, MemoryTimes(**times)), clock)
        await site.broker.create_topics(topic_specs(PREFIX, PARTITIONS))
        return site

    # -------------------------------------------------------------- dead letters

    async def bury(self, number: int, stage: str = "infer", payload: Payload = CONTEXT, **more: Any) -> LetterHead:
        """Write the dead letter of job `number`, and read its head. `more`: see `grave`, `job` and `headers` below."""
        noun = NOUNS[stage]
        job = Job(f"job-{number}", "acme", "quick_answer", "standard", **more.pop("job", {}))
        event = Event(f"event-{number}", job, payload, b"k%d" % number, root(job.id), _nowhere())
        value = more.pop("value", None) or await CODEC.encode(noun.partition(".")[0], payload)
        source = self.broker.append(
            Outgoing(f"{PREFIX}.{noun}", event.key, value, event.headers("contexts", self.clock()), number % PARTITIONS)
        )
        record = self._at(source)
        code, now = more.pop("code", "model_500"), self.clock()
        grave = Grave(stage, f"{PREFIX}.{stage}", code, "Retry", "it is down", "0.1", now)
        headers = dead_headers(record, Origin(record.position, record.timestamp_ms), Tries(3, 1, 0), grave)
        return self.lay(stage, record, (*headers, *more.pop("headers", ())))

    def lay(self, stage: str, record: Record, headers: Headers) -> LetterHead:
        """Write a dead letter with these headers."""
        topic = names.dead_letter_topic(PREFIX, stage)
        place = self.broker.append(Outgoing(topic, record.key, record.value, headers, record.partition))
        return read_head(self._at(place))

    def _at(self, place: Position) -> Record:
        (record,) = self.broker.read(Partition(place.topic, place.partition), place.offset, 1)
        return record

    def back(self, stage: str = "infer") -> Sequence[Record]:
        """The copies that were brought back to a stage."""
        tiers = next(one for one in STAGES if one.name == stage).retry.tiers
        return self.broker.records(names.retry_topic(PREFIX, stage, tiers[0]))

    def jobs(self, stage: str = "infer") -> list[str]:
        """The jobs of these copies, sorted."""
        return sorted(h.texts(one.headers)[h.CE_SUBJECT] for one in self.back(stage))

    async def audit(self) -> list[Audit]:
        """What people did."""
        values = [one.value or b"" for one in self.broker.records(f"{PREFIX}.audit")]
        return [await CODEC.decode("audit", Audit, value) for value in values]

    def counts(self) -> dict[str, int]:
        """The next offset of every partition, by its name: what no dry run changes."""
        specs = topic_specs(PREFIX, PARTITIONS)
        logs = [(spec.name, number) for spec in specs for number in range(self.broker.count(spec.name))]
        return {f"{name}/{number}": self.broker.range(Partition(name, number))[1] for name, number in logs}

    # -------------------------------------------------------------- replays

    async def known(self, **more: Any) -> Known:
        """What a process knows of the pipeline."""
        counts = more.pop("counts", None) or await self.broker.partitions_under(f"{PREFIX}.")
        stages = {one.name: one for one in STAGES}
        return Known(PREFIX, stages, CATALOG, CODEC, self.clock, partitions=counts, **more)

    async def create(self, *topics: str) -> None:
        """Create topics that the pipeline does not have (any more)."""
        await self.broker.create_topics([TopicSpec(name, PARTITIONS) for name in topics])

    async def replays(self) -> Replays:
        """Open replays as the program does."""
        first, second = self.broker.reader(committed=True), self.broker.reader(committed=True)
        transactions = self.broker.transactions(group(PREFIX), group(PREFIX))
        holder = f"holder-{next(self.numbers)}"
        return Replays(await self.known(), first, second, transactions, holder, self.told.append)

    async def book(self) -> Book:
        """A book that is not read yet."""
        topic = f"{PREFIX}.letters"
        return Book(topic, self.broker.count(topic), self.broker.reader(committed=True), CODEC)

    async def plan(self, rules: Rules, wanted: Wanted | None = None, **more: Any) -> Plan:
        """Make a plan."""
        planner = Planner(
            await self.known(**more), self.broker.reader(committed=True), await self.book(), rules, _quiet
        )
        return await planner.plan(wanted or Wanted())

    async def process(
        self, rules: Rules, wanted: Wanted | None = None, rate: float = 1000.0, person: Person = ANN
    ) -> Process:
        """Start a process, which has made its plan."""
        known, book, reader = await self.known(), await self.book(), self.broker.reader(committed=True)
        plan = await Planner(known, reader, book, rules, _quiet).plan(wanted or Wanted())
        transactions = self.broker.transactions(f"{PREFIX}.replay", f"{PREFIX}.replay")
        holder = f"process-{next(self.numbers)}"
        journal = Journal(PREFIX, book, CODEC, self.clock, transactions, rules.replay, holder, person, self.told.append)
        stop = asyncio.Event()
        run = Run(plan, Steps(plan, known, book, person), reader, book, journal, rate, stop, _quiet)
        return Process(known, journal, transactions, plan, stop, run)

    async def replay(self, rules: Rules, wanted: Wanted | None = None, rate: float = 1000.0) -> Report:
        """Plan and run."""
        return await (await self.process(rules, wanted, rate)).go()


def _nowhere() -> Origin:
    return Origin(Position("p.nowhere", 0, 0), int(EPOCH * 1000))


def _quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""

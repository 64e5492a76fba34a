"""A world for one runner or several: topics, a codec that speaks JSON, scripted handlers, and what became of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from pipeline.broker.memory import MemoryBroker
from pipeline.broker.memory_transactions import MemoryTransactions
from pipeline.broker.topics import TopicSpec
from pipeline.core import headers as h
from pipeline.core import names
from pipeline.core.errors import Halt, Reject
from pipeline.core.event import Event
from pipeline.core.payloads import Failure, JobPayload, Nothing, Payload
from pipeline.core.record import Headers, Outgoing, Partition, Record
from pipeline.core.retry import TIERS
from pipeline.core.stage import Context, Stage, Topic
from pipeline.devkit.clock import wall
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.telemetry.metrics import StageMetrics
from tests.runtime.meddling import Consumer, Producer

P = TypeVar("P", bound=Payload)


class Note(JobPayload):
    """What the test topics carry."""

    text: str


IN, OUT, END = Topic("in", Note), Topic("out", Note), Topic("end", Note)
OPEN = Topic("open", Note, open_topic=True)
LANED = Topic("laned", Note, laned=True)
FAILURES = Topic("failures", Failure)


class JsonCodec:
    """Payloads as JSON. `encoding` and `decoding` are asked first and may raise; the former by noun."""

    def __init__(self) -> None:
        self.encoding: Callable[[str], None] = lambda _: None
        self.decoding: Callable[[bytes], Awaitable[None]] | None = None

    async def decode(self, noun: str, payload: type[P], value: bytes) -> P:
        if self.decoding is not None:
            await self.decoding(value)
        try:
            return payload.model_validate_json(value)
        except ValueError:
            raise Reject(f"cannot decode the value as {noun}", code="undecodable") from None

    async def encode(self, noun: str, payload: Payload) -> bytes:
        self.encoding(noun)
        return payload.model_dump_json().encode()


class Decoder:
    """Reads foreign topics whose values are plain text; a null asks for nothing. Keeps the records it was shown.

    `answers` lists by text what the next looks at it do: raise or return.
    """

    def __init__(self, *topics: str, **answers: list[Any]) -> None:
        self.topics: Collection[str] = topics
        self.answers = answers
        self.seen: list[tuple[Record, str]] = []

    async def decode(self, record: Record, topic: str) -> Payload:
        self.seen.append((record, topic))
        text = "" if record.value is None else record.value.decode()
        answer = self.answers[text].pop(0) if self.answers.get(text) else None
        if isinstance(answer, BaseException):
            raise answer
        return answer or (Nothing(why="a tombstone") if record.value is None else Note(text=text))


@dataclass(frozen=True, slots=True)
class Call:
    """One try, as the handler saw it."""

    text: str
    key: bytes
    attempt: int
    began: float
    event: Event[Any]


class Script:
    """A handler that answers `<text>` by `<text>!`, after `seconds`, unless `answers` holds something else for it.

    `answers` lists by text what the next tries do: raise, return, or run. It keeps what the laws of order are about:
    who ran when, how many at once, and whether two of one key ever did.
    """

    def __init__(self, seconds: float | Callable[[str], float] = 0.0, /, **answers: list[Any]) -> None:
        self.seconds = seconds
        self.answers = answers
        self.calls: list[Call] = []
        self.running: list[str] = []
        self.most = 0
        self.levels: list[tuple[float, int]] = []
        self.overlaps: list[bytes] = []
        self.done: list[str] = []
        self._keys: set[bytes] = set()

    async def __call__(self, event: Event[Any], ctx: Context, /) -> Sequence[Any]:
        text = getattr(event.payload, "text", type(event.payload).__name__)
        self.calls.append(Call(text, event.key, ctx.attempt, ctx.now(), event))
        with self._noted(text, event.key):
            answer = self.answers[text].pop(0) if self.answers.get(text) else None
            if callable(answer):
                answer = await answer()
            seconds = self.seconds(text) if callable(self.seconds) else self.seconds
            if seconds:
                await asyncio.sleep(seconds)
            if isinstance(answer, BaseException):
                raise answer
            self.done.append(text)
            return [Note(text=f"{text}!")] if answer is None else answer

    @contextmanager
    def _noted(self, text: str, key: bytes) -> Iterator[None]:
        if key in self._keys:
            self.overlaps.append(key)
        self._keys.add(key)
        self.running.append(text)
        self._level()
        try:
            yield
        finally:
            self._keys.discard(key)
            self.running.remove(text)
            self._level()

    def _level(self) -> None:
        self.most = max(self.most, len(self.running))
        self.levels.append((asyncio.get_running_loop().time(), len(self.running)))

    @property
    def texts(self) -> list[str]:
        return [call.text for call in self.calls]

    def times(self, text: str) -> list[float]:
        """When the tries of `text` began, by the wall clock."""
        return [call.began for call in self.calls if call.text == text]


@dataclass
class Run:
    """A runner at work."""

    runner: Runner
    consumer: Consumer
    producer: Producer
    handler: Script
    transactions: MemoryTransactions
    task: asyncio.Task[None] = field(init=False)

    async def stop(self) -> None:
        """Stop and wait for the end; a Halt is raised here."""
        self.runner.stop()
        await self.task

    async def kill(self) -> None:
        """End it as SIGKILL would: nothing more is finished, written, committed or said."""
        self.consumer.dead = self.producer.dead = True
        self.transactions.die()
        await self.halted()

    async def halted(self) -> Halt:
        """Wait until the stage has stopped itself; returns why."""
        await asyncio.wait([self.task])
        error = self.task.exception()
        assert isinstance(error, Halt)
        return error


class World:
    """One broker, one codec, any number of runners. `t` is the prefix of all topics."""

    def __init__(self, partitions: int = 1, broker: MemoryBroker | None = None) -> None:
        self.partitions = partitions
        self.codec = JsonCodec()
        self.registry = CollectorRegistry()
        self.observer = Observer(StageMetrics(self.registry))
        self.broker = broker or MemoryBroker(wall)
        self.counts: dict[str, int] = {}
        self.runs: list[Run] = []

    # -------------------------------------------------------------- make

    @classmethod
    async def make(cls, partitions: int = 1, broker: MemoryBroker | None = None) -> World:
        """Make a world with the usual topics."""
        world = cls(partitions, broker)
        nouns = ("in", "out", "end", "open", "failures", "laned.interactive", "laned.standard", "laned.batch")
        await world.create(*(f"t.{noun}" for noun in nouns))
        return world

    async def create(self, *topics: str, partitions: int | None = None, **config: str) -> None:
        """Create topics; `config` with underscores for dots."""
        known = {name.replace("_", "."): value for name, value in config.items()}
        await self.broker.create_topics(TopicSpec(topic, partitions or self.partitions, known) for topic in topics)

    @staticmethod
    def stage(*sources: Topic[Any], output: Topic[Any] | None = OUT, name: str = "work", **policy: Any) -> Stage:
        """Declare a stage from `sources`, `t.in` unless said, to `output`."""
        return Stage(name=name, sources=sources or (IN,), output=output, handler=Script, **policy)

    async def start(self, handler: Script, stage: Stage | None = None, *, tiers: bool = True, **kit: Any) -> Run:
        """Start a runner of `stage`, or of the usual one from `t.in` to `t.out`, with its own consumer.

        Without `tiers` it does not read them, so that a second worker gets its share of the source: groups are balanced
        by the number of partitions, whatever topic they are of.
        """
        run = await self.make_run(handler, stage or self.stage(), tiers=tiers, **kit)
        run.task = asyncio.create_task(run.runner.run())
        self.runs.append(run)
        return run

    async def make_run(self, handler: Script, stage: Stage, *, tiers: bool = True, **kit: Any) -> Run:
        """Make a runner and do not start it. It reads the topics of a decoder that is given as `foreign`."""
        foreign = kit.get("foreign")
        bound = plan(stage, "t", foreign.topics if foreign else ())
        await self.create(*bound.tiers, bound.dead_letters, max_message_bytes="2097152")
        if not tiers:
            bound = replace(bound, tiers={})
        consumer, producer = Consumer(self.broker, bound.group, kit.pop("patience", None)), Producer(self.broker)
        transactions = self.broker.transactions(bound.group, f"{bound.group}.{len(self.runs)}")
        known = {"observer": self.observer, "version": "1.2.3", "transactions": transactions, **kit}
        if stage.costly:
            known.setdefault("reader", self.broker.reader())
            known.setdefault("members", self.broker.members)
        runner = Runner(bound, handler, Kit(consumer, producer, self.codec, wall, **known))
        return Run(runner, consumer, producer, handler, transactions)

    def put(
        self,
        *texts: str,
        key: bytes | None = b"k",
        topic: str = "t.in",
        partition: int = 0,
        headers: Mapping[str, str] | Headers = (),
    ) -> list[Record]:
        """Write notes onto a topic."""
        return [self.write(Note(text=text), key, topic, partition, headers) for text in texts]

    def write(
        self,
        value: Payload | bytes | None,
        key: bytes | None = b"k",
        topic: str = "t.in",
        partition: int = 0,
        headers: Mapping[str, str] | Headers = (),
    ) -> Record:
        """Write any value onto a topic."""
        raw = value.model_dump_json().encode() if isinstance(value, Payload) else value
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        given = tuple((name, text.encode() if isinstance(text, str) else text) for name, text in pairs)
        position = self.broker.append(Outgoing(topic, key, raw, given, partition))
        return self.broker.read(Partition(topic, position.partition), position.offset, 1)[0]

    # -------------------------------------------------------------- look

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, partition by partition."""
        return list(self.broker.records(topic))

    def texts(self, topic: str = "t.out") -> list[str]:
        """The texts of the notes on a topic."""
        return [Note.model_validate_json(record.value or b"").text for record in self.records(topic)]

    def failures(self) -> list[Failure]:
        """All failure events."""
        return [Failure.model_validate_json(record.value or b"") for record in self.records("t.failures")]

    def tiers(self, stage: str = "work") -> dict[str, int]:
        """How many copies each tier of a stage has seen."""
        return {tier.name: len(self.records(names.retry_topic("t", stage, tier))) for tier in TIERS}

    def dead(self, stage: str = "work") -> list[Record]:
        """All dead letters of a stage."""
        return self.records(names.dead_letter_topic("t", stage))

    def at(self, topic: str = "t.in", number: int = 0, stage: str = "work") -> int | None:
        """Where the group of a stage stands."""
        commit = self.broker.group(f"t.{stage}").committed.get(Partition(topic, number))
        return None if commit is None else commit.offset

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric of stage `work`."""
        return self.registry.get_sample_value(f"pipeline_{name}", {"stage": "work", **labels}) or 0.0

    # -------------------------------------------------------------- wait

    async def until(self, holds: Callable[[], object], seconds: float = 7_200.0) -> None:
        """Wait in virtual time until something holds; a runner that dies meanwhile fails the test.

        Looks ever more rarely: what matters to a moment is what the handler wrote down.
        """
        clock = asyncio.get_running_loop().time
        start = clock()
        while not holds():
            for run in self.runs:
                if run.task.done() and not run.consumer.dead:
                    run.task.result()
            assert clock() - start < seconds, "it never came to hold"
            await asyncio.sleep(0.02 + (clock() - start) / 50)

    async def settle(self, seconds: float = 1.0) -> None:
        """Let things come to rest, commits included."""
        await asyncio.sleep(seconds)

    async def stop(self) -> None:
        """Stop all that still runs."""
        for run in self.runs:
            if not run.task.done():
                await run.stop()


def header(record: Record, name: str) -> str | None:
    """Read one header."""
    return h.texts(record.headers).get(name)


def ids(records: Sequence[Record]) -> list[str | None]:
    """The event ids of records."""
    return [header(record, h.CE_ID) for record in records]


TOLD: Mapping[str, str] = {h.CE_ID: "event-1", h.CE_SUBJECT: "job-1", h.TENANT: "acme", "mine": "kept"}


async def spent(*answers: Any, value: Note | bytes | None = None, **policy: Any) -> World:
    """Run one record through a stage whose handler answers as told, until it is settled for good."""
    world = await World.make(partitions=3)
    note = Note(text="a", endpoint="crm", metadata={"case": "7"})
    await world.start(Script(a=list(answers)), World.stage(**policy))
    world.write(note if value is None else value, b"key", partition=2, headers=TOLD)
    await world.until(lambda: world.at("t.in", 2) == 1 and world.metric("window_records") == 0)
    await world.until(lambda: world.records("t.out") or world.failures())
    await world.settle()
    await world.stop()
    return world

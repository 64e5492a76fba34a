"""The pipeline on the broker in memory, its ports filled from outside: what the crash simulator plays with.

The stages, their handlers, the runtime and the codec are those of `wiring`; only what is opened differs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, get_type_hints

from pipeline import topology, wiring
from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.control import Verdict
from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.ports import Clock, Consumer, Producer, Reader, Transactions
from pipeline.core.record import Position
from pipeline.core.retry import Decision
from pipeline.core.stage import Context, Handler, Stage
from pipeline.resources import resource
from pipeline.runtime.control import ControlTopic, followed
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

PARTITIONS = 2
LONGEST_DELAY, MOST_DELAYS = 300.0, 3


class Watched(Protocol):
    """Hears from the stages of one process."""

    def gauges(self, stage: str, values: Mapping[str, float], /) -> None:
        """Hear what a stage has in hand."""
        ...

    def handling(self, stage: Stage, event: Event[Any], known: Verdict, /) -> AbstractContextManager[None]:
        """Watch a handler run; `known` is what its process knows of commands. May raise what it is to raise."""
        ...


class Given(Protocol):
    """The clients of one process, its clock and its name."""

    @property
    def name(self) -> str:
        """What no other process is called, nor this one in another life."""
        ...

    @property
    def producer(self) -> Producer:
        """Its one producer."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    def reader(self) -> Reader:
        """Make a reader."""
        ...

    async def members(self, group: str) -> Collection[str]:
        """Name the members of `group`."""
        ...

    def consumer(self, group: str) -> Consumer:
        """Make a member of `group`."""
        ...

    def transactions(self, group: str, unique: str) -> Transactions:
        """Make transactions for the offsets of `group`."""
        ...

    async def counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Count the partitions of topics."""
        ...


def _impatient(stage: Stage) -> Stage:
    """Declare a stage that gives up within ten minutes: a day of waiting for webhooks would show nothing more."""
    delays = tuple(min(delay, LONGEST_DELAY) for delay in stage.retry.delays[:MOST_DELAYS])
    return replace(stage, retry=replace(stage.retry, delays=delays))


PLAYED: Sequence[Stage] = tuple(_impatient(one) for one in topology.STAGES if one.name != "deliver")
"""The stages that are played. `deliver` is `notify` with retries in place, which is one of the ways that are drawn."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The stages of `topology`, to be built any number of times under one prefix."""

    prefix: str = "pipeline"
    stages: Sequence[Stage] = PLAYED
    codec: AvroCodec = field(default_factory=lambda: AvroCodec(load_schemas(resource("schemas"))))
    runner: Callable[[Plan, Handler[Any, Any], Kit], Runner] = Runner

    @property
    def growing(self) -> Sequence[str]:
        """The topics that grow together, in the order in which they are to."""
        return topology.growth_order(self.prefix)

    def grow(self, broker: wiring.Grows, partitions: int) -> AsyncIterator[tuple[str, int]]:
        """Let topics grow, as `pipeline topics grow` does."""
        return wiring.grow_topics(self.prefix, broker, partitions)

    async def broker(self, clock: Clock, session: float) -> MemoryBroker:
        """Make a broker with all topics; `session` is how long a silent member is waited for, in seconds."""
        broker = MemoryBroker(clock, MemoryTimes(session=session))
        await broker.create_topics(topology.topic_specs(self.prefix, PARTITIONS))
        return broker

    def worker(self, stages: Sequence[Stage], given: Given, world: Mapping[type, Any], watch: Watched) -> Process:
        """Build a process that runs `stages`; `world` fills the handlers' ports, by type."""
        types = world[Catalog].types
        topic = names.topic(self.prefix, topology.CONTROL.noun)
        control = ControlTopic(
            topic, given.reader(), self.codec, given.clock, lambda kind: types[kind].model if kind in types else ""
        )
        observer = _Quiet(watch)

        def build() -> Worker:
            return Worker([self._runner(stage, given, world, observer, control) for stage in stages])

        return Process(build, control)

    def _runner(
        self, stage: Stage, given: Given, world: Mapping[type, Any], observer: _Quiet, control: ControlTopic
    ) -> Runner:
        bound = plan(stage, self.prefix)
        once, unique = stage.delivery == "exactly once", names.transactional_id(self.prefix, stage.name, given.name)
        kit = Kit(
            consumer=given.consumer(bound.group),
            producer=given.producer,
            codec=self.codec,
            clock=given.clock,
            observer=observer,
            version=wiring.VERSION,
            counts=given.counts,
            reader=given.reader() if stage.costly else None,
            transactions=given.transactions(bound.group, unique) if once else None,
            admission=control,
            members=given.members,
        )
        return self.runner(bound, _Handler(_handler(stage, world), stage, observer.watch, control), kit)


class Process:
    """A worker that first reads what was commanded before it, and follows that while it runs, as `wiring` has it."""

    def __init__(self, build: Callable[[], Worker], control: ControlTopic) -> None:
        """Build nothing yet."""
        self._build = build
        self._control = control
        self._worker: Worker | None = None
        self._asked = False

    @property
    def runners(self) -> Sequence[Runner]:
        """Its stages; none before it has begun."""
        return self._worker.runners if self._worker else ()

    async def run(self) -> int:
        """Run until stopped."""
        async with followed(self._control):
            self._worker = worker = self._build()
            if self._asked:
                worker.stop()
            return await worker.run()

    def stop(self) -> None:
        """Ask for a drain."""
        self._asked = True
        if self._worker:
            self._worker.stop()


@dataclass(frozen=True, slots=True)
class _Handler:
    """A handler that is watched."""

    handler: Handler[Any, Any]
    stage: Stage
    watch: Watched
    control: ControlTopic

    async def __call__(self, event: Event[Any], ctx: Context) -> Sequence[Any]:
        known = self.control.verdict(self.stage.name, event.job)
        with self.watch.handling(self.stage, event, known):
            return await self.handler(event, ctx)


def _handler(stage: Stage, world: Mapping[type, object]) -> Handler[Any, Any]:
    hints = get_type_hints(stage.handler)
    return stage.handler(**{one.name: world[hints[one.name]] for one in fields(stage.handler)})  # type: ignore[arg-type]  # every handler is a dataclass


class _Quiet(Observer):
    """Writes no lines: thousands of runs would drown whatever they have to say."""

    def __init__(self, watch: Watched) -> None:
        super().__init__()
        self.watch = watch

    def gauges(self, plan: Plan, **values: float) -> None:
        self.watch.gauges(plan.stage.name, values)

    def concluded(self, plan: Plan, event: Event[Payload], decision: Decision, error: Exception) -> None:
        pass

    def done(self, stage: str, event: Event[Payload]) -> None:
        pass

    def abandoned(self, plan: Plan, positions: Sequence[Position]) -> None:
        pass

    def untold(self, plan: Plan, position: Position, error: Exception) -> None:
        pass

    def changed(self, plan: Plan, state: str, reason: str = "") -> None:
        pass

"""The pipeline on the broker in memory, its ports filled from outside: what the crash simulator plays with.

The stages, their handlers, the runtime and the codec are those of `wiring`; only what is opened differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, get_type_hints

from pipeline import topology, wiring
from pipeline.broker.memory import MemoryBroker, MemoryTimes
from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.ports import Clock, Consumer, Producer, Reader
from pipeline.core.record import Position
from pipeline.core.retry import Decision
from pipeline.core.stage import Handler, Stage
from pipeline.resources import resource
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

PARTITIONS = 2

Gauges = Callable[[str, Mapping[str, float]], None]


class Given(Protocol):
    """The clients of one process, and its clock."""

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


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The stages of `topology`, to be built any number of times under one prefix."""

    prefix: str = "pipeline"
    stages: Sequence[Stage] = topology.STAGES
    codec: AvroCodec = field(default_factory=lambda: AvroCodec(load_schemas(resource("schemas"))))
    runner: Callable[[Plan, Handler[Any, Any], Kit], Runner] = Runner

    async def broker(self, clock: Clock, session: float) -> MemoryBroker:
        """Make a broker with all topics; `session` is how long a silent member is waited for, in seconds."""
        broker = MemoryBroker(clock, MemoryTimes(session=session))
        await broker.create_topics(topology.topic_specs(self.prefix, PARTITIONS))
        return broker

    def worker(self, stages: Sequence[str], given: Given, world: Mapping[type, object], gauges: Gauges) -> Worker:
        """Build a process that runs `stages`; `world` fills the handlers' ports, by type."""
        observer = _Quiet(gauges)
        runners = []
        for stage in self.stages:
            if stage.name in stages:
                bound = plan(stage, self.prefix)
                kit = Kit(
                    given.consumer(bound.group),
                    given.producer,
                    self.codec,
                    given.clock,
                    observer,
                    wiring.VERSION,
                    reader=given.reader() if stage.costly else None,
                    members=given.members,
                )
                runners.append(self.runner(bound, _handler(stage, world), kit))
        return Worker(runners)


def _handler(stage: Stage, world: Mapping[type, object]) -> Handler[Any, Any]:
    hints = get_type_hints(stage.handler)
    return stage.handler(**{one.name: world[hints[one.name]] for one in fields(stage.handler)})  # type: ignore[arg-type]  # every handler is a dataclass


class _Quiet(Observer):
    """Writes no lines: thousands of runs would drown whatever they have to say."""

    def __init__(self, gauges: Gauges) -> None:
        super().__init__()
        self._gauges = gauges

    def gauges(self, plan: Plan, **values: float) -> None:
        self._gauges(plan.stage.name, values)

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

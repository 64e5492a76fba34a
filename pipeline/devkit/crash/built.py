"""What the simulator is given: a pipeline that can be built any number of times, on any clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from pipeline.core.ports import Clock, Codec, Consumer, Producer, Reader
from pipeline.core.record import Partition
from pipeline.core.stage import Stage
from pipeline.devkit.crash import clients
from pipeline.devkit.crash.clients import Host, Network


class Runs(Protocol):
    """One stage at work."""

    def status(self) -> tuple[str, bool, str]:
        """Return its name, whether it does its work, and its state in words."""
        ...


class Worker(Protocol):
    """The stages of one process."""

    @property
    def runners(self) -> Sequence[Runs]:
        """Its stages."""
        ...

    def run(self) -> Coroutine[Any, Any, int]:
        """Run until stopped."""
        ...

    def stop(self) -> None:
        """Ask for a drain."""
        ...


class Broker(clients.Broker, Protocol):
    """The broker in memory, as the simulator looks at it in the end."""

    async def lag(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        """Return how many offsets a group is behind, by partition."""
        ...


class Given:
    """What one process is built on: clients of its own over the network, and the clock of the run."""

    def __init__(self, host: Host, network: Network, clock: Clock) -> None:
        """Make the process's one producer."""
        self.producer: Producer = clients.Producer(host, network)
        self.clock = clock
        self._host = host
        self._network = network

    def reader(self) -> Reader:
        """Make a reader."""
        return clients.Reader(self._host, self._network)

    async def members(self, group: str) -> Collection[str]:
        """Name the members of `group`, after a while."""
        await asyncio.sleep(self._network.delay())
        return await self._network.broker.members(group)

    def consumer(self, group: str) -> Consumer:
        """Make a member of `group`."""
        return clients.Consumer(self._host, self._network, group)


Gauges = Callable[[str, Mapping[str, float]], None]
"""Hears from a stage, by name, what it has in hand."""


class Rehearsal(Protocol):
    """A pipeline to be rehearsed."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Its stages."""
        ...

    @property
    def prefix(self) -> str:
        """The prefix of its topics."""
        ...

    @property
    def codec(self) -> Codec:
        """What its records are written and read with."""
        ...

    async def broker(self, clock: Clock, session: float) -> Broker:
        """Make a broker with all topics."""
        ...

    def worker(self, stages: Sequence[str], given: Given, world: Mapping[type, object], gauges: Gauges) -> Worker:
        """Build a process that runs `stages`; `world` fills the handlers' ports, by type."""
        ...

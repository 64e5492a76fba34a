"""What the simulator is given: a pipeline that can be built any number of times, on any clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipeline.core.control import Verdict
from pipeline.core.event import Event
from pipeline.core.ports import Clock, Codec, Consumer, Producer, Reader, Transactions
from pipeline.core.record import Partition
from pipeline.core.stage import Stage
from pipeline.devkit.crash import clients, network, transactions
from pipeline.devkit.crash.network import Host, Network


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


class Broker(network.Broker, Protocol):
    """The broker in memory, as the simulator looks at it in the end."""

    async def lag(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        """Return how many offsets a group is behind, by partition."""
        ...

    async def members(self, group: str) -> Collection[str]:
        """Name the members of a group."""
        ...

    async def partitions(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Count the partitions of topics."""
        ...

    async def grow_topic(self, topic: str, partitions: int) -> None:
        """Raise the number of a topic's partitions."""
        ...


class Given:
    """What one process is built on: clients of its own over the network, and the clock of the run."""

    def __init__(self, host: Host, network: Network, broker: Broker, clock: Clock) -> None:
        """Make the process's one producer."""
        self.producer: Producer = clients.Producer(host, network)
        self.clock = clock
        self.name = host.process.name
        self._broker = broker
        self._host = host
        self._network = network

    def reader(self) -> Reader:
        """Make a reader."""
        return clients.Reader(self._host, self._network)

    async def members(self, group: str) -> Collection[str]:
        """Name the members of `group`, after a while."""
        await asyncio.sleep(self._network.delay())
        return await self._broker.members(group)

    def consumer(self, group: str) -> Consumer:
        """Make a member of `group`."""
        return clients.Consumer(self._host, self._network, group)

    def transactions(self, group: str, unique: str) -> Transactions:
        """Make transactions for the offsets of `group`."""
        return transactions.Transactions(self._host, self._network, group, unique)

    async def counts(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Count the partitions of topics."""
        await asyncio.sleep(self._network.delay())
        return await self._broker.partitions(topics)


class Watched(Protocol):
    """Hears from the stages of one process."""

    def gauges(self, stage: str, values: Mapping[str, float], /) -> None:
        """Hear what a stage has in hand."""
        ...

    def handling(self, stage: Stage, event: Event[Any], known: Verdict, /) -> AbstractContextManager[None]:
        """Watch a handler run; `known` is what its process knows of commands. May raise what it is to raise."""
        ...


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

    @property
    def growing(self) -> Sequence[str]:
        """The topics that grow together, in the order in which they are to."""
        ...

    def grow(self, broker: Broker, partitions: int) -> AsyncIterator[tuple[str, int]]:
        """Let topics grow, as the command does: yields each with the count that it had."""
        ...

    def worker(self, stages: Sequence[Stage], given: Given, world: Mapping[type, object], watch: Watched) -> Worker:
        """Build a process that runs `stages`; `world` fills the handlers' ports, by type."""
        ...

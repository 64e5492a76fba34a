"""What all processes of a run share: the broker, the ledger, chance; and how each of them reaches the broker."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from pipeline.core import ports
from pipeline.core.record import Commit, Outgoing, Partition, Position
from pipeline.devkit.crash.faults import Flaw
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.scheduler import Process
from pipeline.devkit.crash.written import Written

LONGEST_REST = 20.0
"""Seconds between two looks of an idle consumer: what wakes it rings its bell."""


class AcknowledgementLost(Exception):
    """The record is written, and its producer is told that this is not known."""


class Group(Protocol):
    """What of a consumer group is watched."""

    committed: dict[Partition, Commit]

    def leave(self, member: int) -> None:
        """Let a member go."""
        ...


class Member(ports.Consumer, Protocol):
    """A consumer of the broker in memory."""

    group: str
    number: int

    def die(self) -> None:
        """Do nothing any more."""
        ...

    def expel(self) -> None:
        """Be put out of the group, and hear of it in the next fetch."""
        ...


class Looking(Protocol):
    """A client that rests while nothing happens."""

    @property
    def topics(self) -> Collection[str]:
        """What it reads."""
        ...

    def ring(self) -> None:
        """Let it look soon."""
        ...


class Joined(Looking, Protocol):
    """A consumer of a process."""

    @property
    def inner(self) -> Member:
        """What the broker knows of it."""
        ...


class Writing(Protocol):
    """Transactions of a process."""

    def fail(self, flaw: Flaw) -> None:
        """Let the next one fail."""
        ...

    def die(self) -> None:
        """Do nothing any more."""
        ...


class Times(Protocol):
    """How long a transaction takes."""

    @property
    def transact(self) -> float:
        """Seconds for a step."""
        ...

    @property
    def abandon(self) -> float:
        """Seconds after which it is aborted."""
        ...


class Cluster(Protocol):
    """The broker, as transactions see it."""

    @property
    def times(self) -> Times:
        """How long things take."""
        ...

    def append(self, record: Outgoing, transaction: object = None) -> Position:
        """Write a record."""
        ...

    def end(self, transaction: object, *, committed: bool) -> None:
        """End a transaction."""
        ...


class Transacts(ports.Transactions, Protocol):
    """Transactions of the broker in memory; `faults` befall the next commits."""

    faults: deque[Flaw | None]

    def die(self) -> None:
        """Do nothing any more."""
        ...


class Broker(Protocol):
    """What is needed of the broker in memory."""

    def append(self, record: Outgoing, transaction: object = None) -> Position:
        """Write a record."""
        ...

    def end(self, transaction: object, *, committed: bool) -> None:
        """End a transaction."""
        ...

    def consumer(self, group: str) -> Member:
        """Make a consumer."""
        ...

    def reader(self) -> ports.Reader:
        """Make a reader."""
        ...

    def transactions(self, group: str, transactional_id: str, through: Cluster | None = None) -> Transacts:
        """Make transactions."""
        ...

    def group(self, name: str) -> Group:
        """Return a group."""
        ...


@dataclass(slots=True)
class Link:
    """How a process reaches the broker just now; times are the loop's."""

    away_until: float = 0.0
    late_until: float = 0.0
    untold: int = 0


@dataclass(eq=False)
class Host:
    """One life of a process: its steps, its link, its clients. `silent` hosts have been given up for good.

    `fell` says that it did not end well: what it alone had in hand may be lost, where a stage may lose anything.
    `taken` are the records that such stages were given; `epochs` count how often a partition came or went.
    """

    process: Process
    link: Link = field(default_factory=Link)
    consumers: list[Joined] = field(default_factory=list)
    readers: list[Looking] = field(default_factory=list)
    transactions: list[Writing] = field(default_factory=list)
    silent: bool = False
    fell: bool = False
    troubled: float = 0.0
    taken: set[Position] = field(default_factory=set)
    epochs: Counter[Partition] = field(default_factory=Counter)

    def ring(self, topic: str = "") -> None:
        """Let every consumer of the process, or those that read `topic`, look soon."""
        for consumer in self.consumers:
            if not topic or topic in consumer.topics:
                consumer.ring()


class Network:
    """Broker, ledger and chance, for all processes. `disturbances` say when a process was troubled, and which.

    `moves` are the times at which partitions left somebody. `early` are the topics of stages that may lose records.
    """

    def __init__(self, broker: Broker, ledger: Ledger, chance: Random) -> None:
        """Join them."""
        self.broker = broker
        self.ledger = ledger
        self.chance = chance
        self.hosts: list[Host] = []
        self.disturbances: list[tuple[float, str]] = []
        self.moves: list[float] = []
        self.early: frozenset[str] = frozenset()
        self._written: dict[object, set[str]] = {}

    def write(self, host: Host | None, record: Outgoing, job: str = "", transaction: object = None) -> Written:
        """Write a record at once, and let those who read its topic know. Raises what the broker raises."""
        position = self.broker.append(record, transaction)
        if transaction is not None:
            self._written.setdefault(transaction, set()).add(record.topic)
        by = host.process.name if host else "outside"
        made = self.ledger.written(_now(), by, record, position, job, transaction)
        self._tell(record.topic)
        return made

    def end(self, transaction: object, *, committed: bool) -> None:
        """End a transaction, and let those know who may read on."""
        self.broker.end(transaction, committed=committed)
        self.ledger.ended(_now(), transaction, committed=committed)
        for topic in sorted(self._written.pop(transaction, ())):
            self._tell(topic)

    def _tell(self, topic: str) -> None:
        for host in self.hosts:
            host.ring(topic)
            for reader in host.readers:
                if topic in reader.topics:
                    reader.ring()

    def ring(self, topic: str = "") -> None:
        """Let everybody look, or all who read `topic`: a group may have shared its partitions out anew."""
        for host in self.hosts:
            host.ring(topic)

    def moved(self, host: Host, partitions: Collection[Partition]) -> None:
        """Note that partitions came to a process, or left it."""
        if partitions:
            host.epochs.update(list(partitions))
            self.moves.append(_now())

    def disturbed(self, host: Host, text: str) -> None:
        """Note what explains that work is done twice."""
        self.ledger.say(_now(), host.process.name, text)
        self.disturbances.append((_now(), host.process.name))
        host.troubled = _now()

    def delay(self) -> float:
        """Draw how long something takes on its way: mostly a few milliseconds, at times much longer."""
        drawn = self.chance.random()
        return drawn * 0.004 if drawn < 0.95 else (drawn - 0.95) * 20


class Bell:
    """What an idle client rests on: it looks again when it is rung, once soon after that, and then hardly ever."""

    def __init__(self) -> None:
        """Begin as if just rung."""
        self._quiet = 0
        self._waiter: asyncio.Future[bool] | None = None

    def ring(self) -> None:
        """Wake who rests on it."""
        self._quiet = 0
        self._end(rung=True)

    async def rung(self, seconds: float) -> bool:
        """Rest; False where nothing happens for `seconds`, or for much longer where nothing has happened before."""
        loop = asyncio.get_running_loop()
        wait = LONGEST_REST if self._quiet else seconds
        self._quiet += 1
        self._waiter = loop.create_future()
        timer = loop.call_later(wait, self._end)
        try:
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _end(self, *, rung: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(rung)


def _now() -> float:
    return asyncio.get_running_loop().time()

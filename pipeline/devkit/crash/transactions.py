"""The port `Transactions` of one process: each of its steps goes over the network, and any of them may be its last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pipeline.core.ports import Batch, Ended
from pipeline.core.record import Outgoing, Position
from pipeline.devkit.crash.faults import SESSION, Flaw
from pipeline.devkit.crash.network import Host, Network


@dataclass(frozen=True, slots=True)
class Times:
    """How long the next step takes, and after what time a transaction is aborted of which nothing is heard."""

    transact: float
    abandon: float = SESSION


class Cluster:
    """The broker as the transactions of one process reach it: every write of theirs is booked."""

    def __init__(self, host: Host, network: Network) -> None:
        """Stand between `host` and the broker."""
        self._host = host
        self._network = network

    @property
    def times(self) -> Times:
        """Draw how long the next step takes; while the broker is out of reach it waits."""
        link, now = self._host.link, asyncio.get_running_loop().time()
        return Times(self._network.delay() + max(0.0, link.away_until - now, link.late_until - now))

    def append(self, record: Outgoing, transaction: object = None) -> Position:
        """Write a record."""
        return self._network.write(self._host, record, transaction=transaction).position

    def end(self, transaction: object, *, committed: bool) -> None:
        """End a transaction."""
        self._network.end(transaction, committed=committed)


class Transactions:
    """Transactions of one stage in one process; they do nothing any more when it is dead."""

    def __init__(self, host: Host, network: Network, group: str, unique: str) -> None:
        """Write for `host`."""
        self._inner = network.broker.transactions(group, unique, Cluster(host, network))
        self._host = host
        self._network = network
        host.transactions.append(self)

    def begin(self, batch: Batch, ended: Ended) -> None:
        """Begin to write and commit a batch."""

        def heard(error: Exception | None) -> None:
            ended(error)
            # Its consumer looks where it stands now, and who it is to the group.
            self._host.ring()

        self._inner.begin(batch, heard)

    def wait(self, seconds: float) -> bool:
        """Do what `seconds` suffice for."""
        return self._inner.wait(seconds)

    def fail(self, flaw: Flaw) -> None:
        """Let the next commit fail, or its answer be lost."""
        self._inner.faults.append(flaw)

    def die(self) -> None:
        """Do nothing any more; the broker aborts what is open when its time is over."""
        self._inner.die()

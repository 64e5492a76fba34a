"""The ports `Producer`, `Consumer` and `Reader` of one process, over a network that delays, loses and comes back.

What a process has sent and the broker not yet taken is in the process's own memory: it is lost with it, in the order of
sending, as with a real client. What was taken stays, whether the process hears of it or not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from pipeline.core.errors import Halt
from pipeline.core.ports import Delivered, Rebalance
from pipeline.core.record import Commit, Outgoing, Partition, Record
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.network import AcknowledgementLost, Bell, Host, Network


class Producer:
    """Records leave in order within a topic, and their acknowledgements come in the order of writing."""

    def __init__(self, host: Host, network: Network) -> None:
        """Send for `host`."""
        self._host = host
        self._network = network
        self._boxes: dict[str, deque[tuple[Outgoing, Delivered]]] = {}
        self._leaves: dict[str, float] = {}
        self._words: dict[str, deque[tuple[Delivered, Exception | None, str]]] = {}
        self._tells: dict[str, float] = {}
        self._open = 0
        self._done = asyncio.Event()

    def send(self, record: Outgoing, delivered: Delivered) -> None:
        """Queue a record."""
        if self._host.silent:
            return
        self._open += 1
        self._done.clear()
        self._boxes.setdefault(record.topic, deque()).append((record, delivered))
        now = asyncio.get_running_loop().time()
        self._leaves[record.topic] = at = max(self._leaves.get(record.topic, 0.0), now + self._network.delay())
        self._host.process.later(at - now, self._leave, record.topic)

    async def flush(self, timeout: float) -> int:
        """Wait until all is acknowledged."""
        if self._open and not self._host.silent:
            try:
                async with asyncio.timeout(timeout):
                    await self._done.wait()
            except TimeoutError:
                pass
        return 0 if self._host.silent else self._open

    def _leave(self, topic: str) -> None:
        host, now = self._host, asyncio.get_running_loop().time()
        if host.silent:
            return
        if host.link.away_until > now:
            host.process.later(host.link.away_until - now, self._leave, topic)
            return
        record, delivered = self._boxes[topic].popleft()
        error: Exception | None = None
        source = ""
        try:
            source = self._network.write(host, record).origin
        except Exception as refused:
            error = refused
        if error is None and host.link.untold:
            host.link.untold -= 1
            self._network.disturbed(host, f"does not hear of {topic}")
            error = AcknowledgementLost(f"{topic}: no acknowledgement came, and the connection is gone")
        self._words.setdefault(topic, deque()).append((delivered, error, source))
        at = max(self._tells.get(topic, 0.0), now + self._network.delay(), host.link.late_until)
        self._tells[topic] = at
        host.process.later(at - now, self._told, topic)

    def _told(self, topic: str) -> None:
        delivered, error, source = self._words[topic].popleft()
        self._open -= 1
        if not self._open:
            self._done.set()
        if not self._host.silent:
            delivered(error)
            self._host.ring(source.partition("/")[0])


class Consumer:
    """A member of a group that hears late, takes few records at a time, and is left alone while nothing happens."""

    def __init__(self, host: Host, network: Network, group: str) -> None:
        """Read for `host` as a member of `group`."""
        self.inner = network.broker.consumer(group)
        self.topics: frozenset[str] = frozenset()
        self._host = host
        self._network = network
        self._bell = Bell()
        host.consumers.append(self)

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group."""
        self.topics = frozenset(topics)
        self.inner.subscribe(topics, _Heard(rebalance, self._host, self._network))
        self._network.ring()

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return records, at the latest after `timeout`; later where nothing can have changed meanwhile."""
        self._check()
        chance = self._network.chance
        most = limit if chance.random() < 0.5 else 1 + int(chance.random() * 4)
        await self._rest(0.02 * chance.random() if chance.random() < 0.1 else 0.0)
        records = await self.inner.fetch(most, 0.0)
        if not records and await self._bell.rung(timeout):
            self._check()
            records = await self.inner.fetch(most, 0.0)
        if self._network.early:
            self._host.taken.update(one.position for one in records if one.topic in self._network.early)
        return records

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop fetching."""
        self.inner.pause(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on fetching."""
        self.inner.resume(partitions)
        self.ring()

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit at the next fetch."""
        self.inner.commit(offsets)

    def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return how far this member has committed."""
        return self.inner.committed(partitions)

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return where reading stands."""
        return self.inner.positions(partitions)

    async def close(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit and leave."""
        if not self._host.silent:
            await self.inner.close(offsets)
            self._network.ring()

    def membership(self) -> bytes | None:
        """Return what a transaction says of this member."""
        return self.inner.membership()

    def name(self) -> str:
        """Return what the group calls this member."""
        return self.inner.name()

    def missing(self) -> Sequence[str]:
        """Name topics that do not exist."""
        return self.inner.missing()

    def connected(self) -> bool:
        """Whether it lives."""
        return self.inner.connected()

    def ring(self) -> None:
        """Let it look soon, and often for a while."""
        self._bell.ring()

    def _check(self) -> None:
        if self._host.silent:
            raise Halt("the process was killed")

    async def _rest(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)


class _Heard:
    """Hears of a consumer's partitions before their owner does."""

    def __init__(self, owner: Rebalance, host: Host, network: Network) -> None:
        self._owner, self._host, self._network = owner, host, network

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        self._network.moved(self._host, partitions)
        self._owner.assigned(partitions)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        return self._owner.leaving(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        self._network.moved(self._host, partitions)
        return self._owner.revoked(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self._network.moved(self._host, partitions)
        self._owner.lost(partitions)


class Reader:
    """A reader that hears late, and is left alone while nothing is written and nothing asked."""

    def __init__(self, host: Host, network: Network) -> None:
        """Read for `host`."""
        self._inner = network.broker.reader()
        self._host = host
        self._network = network
        self._bell = Bell()
        self.topics: set[str] = set()
        host.readers.append(self)

    async def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Look up where partitions end."""
        await asyncio.sleep(self._network.delay())
        self._bell.ring()
        return await self._inner.ends(partitions)

    def follow(self, partition: Partition, offset: int) -> None:
        """Read a partition."""
        self._inner.follow(partition, offset)
        self.topics.add(partition.topic)
        self._bell.ring()

    def leave(self, partitions: Collection[Partition]) -> None:
        """Read these no more."""
        self._inner.leave(partitions)

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return records, at the latest after `timeout`; later where nothing was written or asked meanwhile."""
        if self._host.silent:
            raise Halt("the process was killed")
        await asyncio.sleep(self._network.delay())
        records = await self._inner.fetch(limit, 0.0)
        if not records and await self._bell.rung(timeout):
            records = await self._inner.fetch(limit, 0.0)
        return records

    def positions(self) -> Mapping[Partition, int]:
        """Return where reading stands."""
        return self._inner.positions()

    async def close(self) -> None:
        """Stop."""
        await self._inner.close()

    def ring(self) -> None:
        """Wake it."""
        self._bell.ring()


class Commits(dict[Partition, Commit]):
    """What a group has committed; the ledger hears of each commit."""

    def __init__(self, group: str, ledger: Ledger) -> None:
        """Begin empty."""
        super().__init__()
        self._group = group
        self._ledger = ledger

    def update(self, commits: Mapping[Partition, Commit]) -> None:  # type: ignore[override]  # only ever called so
        """Commit."""
        if commits:
            self._ledger.committed(asyncio.get_running_loop().time(), self._group, commits)
            super().update(commits)

"""The port `Transactions` on the broker in memory, step by step, with the faults that a test may script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Literal, Protocol

from pipeline.broker.memory_group import Group
from pipeline.broker.transaction_verdicts import took_place
from pipeline.core.ports import Batch, Ended, NotCommitted
from pipeline.core.record import Commit, Outgoing, Partition, Position

Fault = Literal["abort", "unheard", "unheard abort"]
"""What befalls a batch at its commit: the cluster aborts it; or its answer is lost, of a commit or of an abort."""


class Times(Protocol):
    """What of the broker's times transactions go by."""

    @property
    def transact(self) -> float:
        """Seconds that each step takes."""
        ...

    @property
    def abandon(self) -> float:
        """Seconds until the broker aborts what it hears no more of."""
        ...


class Cluster(Protocol):
    """What transactions need of the broker."""

    @property
    def times(self) -> Times:
        """How long things take."""
        ...

    def append(self, record: Outgoing, transaction: object = None) -> Position:
        """Write a record."""
        ...

    def end(self, transaction: object, *, committed: bool) -> None:
        """Write the markers."""
        ...


class Open:
    """One open transaction, as the broker knows it."""

    def __init__(self, cluster: Cluster, group: Group) -> None:
        """Begin with nothing written."""
        self.over = False
        self.offsets: Mapping[Partition, Commit] = {}
        self._cluster = cluster
        self._group = group
        self._timer: asyncio.TimerHandle | None = None

    def expire(self, seconds: float) -> None:
        """Abort it after a time. In a context of its own: the broker waits, whatever becomes of who has begun it."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, lambda: self.end(committed=False), context=Context())

    def end(self, *, committed: bool) -> None:
        """Commit or abort it, the first time this is called."""
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self._cluster.end(self, committed=committed)
        self._group.end(self, self.offsets if committed else {})


class Coordinator:
    """Knows the newest producer of every transactional id, and its open transaction."""

    def __init__(self) -> None:
        """Begin without any."""
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Open] = {}

    def claim(self, transactional_id: str) -> int:
        """Make a new epoch: all earlier producers of this id are fenced, and what they have open is aborted."""
        if transactional_id in self._open:
            self._open.pop(transactional_id).end(committed=False)
        epoch = self._epochs[transactional_id] = self._epochs.get(transactional_id, 0) + 1
        return epoch

    def opened(self, transactional_id: str, epoch: int, transaction: Open) -> bool:
        """Note an open transaction; False for a producer that is fenced."""
        if self._epochs[transactional_id] != epoch:
            return False
        self._open[transactional_id] = transaction
        return True


class MemoryTransactions:
    """Writes, promises the offsets, commits; each takes the broker's `transact` seconds. `faults` befall what comes."""

    def __init__(self, cluster: Cluster, coordinator: Coordinator, group: Group, transactional_id: str) -> None:
        """Begin; the id is claimed with the first batch, as a client does that has just connected."""
        self.faults: deque[Fault | None] = deque()
        self.dead = False
        self._cluster = cluster
        self._coordinator = coordinator
        self._group = group
        self._id = transactional_id
        self._epoch: int | None = None
        self._batch = Batch((), {}, b"")
        self._ended: Ended | None = None
        self._open = Open(cluster, self._group)
        self._step: Callable[[], None] = self._write
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    # -------------------------------------------------------------- the port

    def begin(self, batch: Batch, ended: Ended) -> None:
        """Begin to write and commit a batch."""
        if self._ended is not None:
            raise RuntimeError("a batch is under way already")
        self._batch, self._ended = batch, ended
        self._next(self._write)

    def wait(self, seconds: float) -> bool:
        """Do the steps that `seconds` suffice for, at once: time stands still meanwhile."""
        end = asyncio.get_running_loop().time() + seconds
        while self._timer is not None and self._due <= end and not self.dead:
            self._timer.cancel()
            self._run()
        return self._ended is None

    def die(self) -> None:
        """End as `kill -9` does: what is open stays open, until the broker has not heard of it for long enough."""
        self.dead = True
        if self._timer is not None:
            self._timer.cancel()

    # -------------------------------------------------------------- steps

    def _next(self, step: Callable[[], None]) -> None:
        if self.dead:
            return
        loop = asyncio.get_running_loop()
        self._step = step
        # Time that a wait has jumped over does not count twice.
        self._due = max(self._due, loop.time()) + self._cluster.times.transact
        self._timer = loop.call_at(self._due, self._run)

    def _run(self) -> None:
        self._timer = None
        self._step()

    def _write(self) -> None:
        if self._epoch is None:
            self._epoch = self._coordinator.claim(self._id)
        self._open = Open(self._cluster, self._group)
        if not self._coordinator.opened(self._id, self._epoch, self._open):
            self._fenced()
            return
        self._open.expire(self._cluster.times.abandon)
        refused: dict[int, Exception] = {}
        for index, record in enumerate(self._batch.records):
            try:
                self._cluster.append(record, self._open)
            except Exception as error:
                refused[index] = error
        if refused:
            self._open.end(committed=False)
            self._end(NotCommitted("records were refused", refused))
        else:
            self._next(self._promise)

    def _promise(self) -> None:
        if self._open.over:
            self._fenced()
        elif self._group.promise(self._open, self._batch.offsets, self._batch.member):
            self._open.offsets = self._batch.offsets
            self._next(self._commit)
        else:
            self._open.end(committed=False)
            self._end(NotCommitted("the group knows no such member in this epoch"))

    def _commit(self) -> None:
        fault = self.faults.popleft() if self.faults else None
        if self._open.over:
            self._fenced()
            return
        self._open.end(committed=fault in (None, "unheard"))
        if fault in ("unheard", "unheard abort"):
            self._next(self._find_out)
        else:
            self._end(None if fault is None else NotCommitted("the cluster has aborted it"))

    def _fenced(self) -> None:
        """Replace the client, as the real one is before it says how the batch ended."""
        self._epoch = self._coordinator.claim(self._id)
        self._end(NotCommitted("fenced by a newer producer of the same id"))

    def _find_out(self) -> None:
        """Claim the id anew, which ends what was open, and see where the group stands."""
        self._epoch = self._coordinator.claim(self._id)
        there = took_place(self._batch.offsets, self._group.committed)
        self._end(None if there else NotCommitted("its end was not heard, and it did not take place"))

    def _end(self, error: Exception | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)

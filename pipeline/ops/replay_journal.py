"""Who may replay, and how what a replay writes is committed: all of a batch or nothing, by one process at a time.

The transactional id is the same for every replay, so a newer one fences the older; the lease on the topic of states
lets it be refused before that, in a sentence. A batch that did not take place is written again only once the lease was
read anew: by then the id is ours again, so whoever takes the lease after that look fences this batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.core import names
from pipeline.core.errors import PipelineError
from pipeline.core.payloads import Audit, Letter
from pipeline.core.ports import Batch, Clock, Codec, NotCommitted, Transactions
from pipeline.core.record import Commit, Outgoing, Partition
from pipeline.core.retry import spread
from pipeline.ops.letter_states import LEASE, Book, Lease
from pipeline.ops.publish import AUDIT_NOUN, audit_record
from pipeline.ops.replay_work import Person

LEASE_SECONDS = 30.0
"""A replay of which nothing was heard for so long is over."""
RENEW_SECONDS = 10.0
AGAIN_SECONDS = 0.1


class Busy(PipelineError):
    """Somebody else replays."""


class TakenOver(PipelineError):
    """Somebody else has taken the replays over."""


class Refused(PipelineError):
    """Records that the cluster will never take, by their index; nothing of their batch took place."""

    def __init__(self, indexes: Mapping[int, Exception]) -> None:
        """Keep them."""
        super().__init__(f"Kafka refuses what a replay writes: {next(iter(indexes.values()), '')}")
        self.indexes = indexes


@dataclass(slots=True)
class Journal:
    """Commits what the replay `replay` writes, as `holder`, a name of this process that nobody else has.

    `tell` hears what happens that a person should know.
    """

    prefix: str
    book: Book
    codec: Codec
    clock: Clock
    transactions: Transactions
    replay: str
    holder: str
    person: Person
    tell: Callable[[str], None]
    _since_ms: int = field(default=0, init=False)
    _renewed: float = field(default=0.0, init=False)
    _batches: int = field(default=0, init=False)

    async def begin(self, action: str, details: Mapping[str, str], *, take_over: bool) -> None:
        """Take the lease, and tell the audit. Raises Busy where somebody has it, unless that is to be taken over.

        From then on nobody else replays, and the book is as they have left it.
        """
        await self.book.refresh()
        now = self.clock()
        rival = self._rival(now)
        if rival is not None and not take_over:
            raise Busy(busy(rival, now))
        if rival is not None:
            self.tell(f"taking over from {rival.operator or 'somebody'}: replay {rival.replay} ends")
            details = {**details, "taken_over": rival.replay}
        self._since_ms = int(now * 1000)
        records = [await self._lease(), await self._audit(action, details)]
        tries = 0
        while (error := await self._try(records, {})) is not None:
            if error.refused:
                raise Refused(error.refused)
            await self._rest(tries := tries + 1)
            await self.book.refresh()
            now = self.clock()
            other = self._rival(now)
            if other is not None and (rival is None or other.holder != rival.holder):
                raise Busy(busy(other, now))
        self._renewed = now
        # What earlier replays have written is there to be read: the id was not ours before all of it was.
        await self.book.refresh()

    @property
    def due(self) -> bool:
        """Whether the lease is to be renewed."""
        return self.clock() - self._renewed >= RENEW_SECONDS

    async def write(self, records: Sequence[Outgoing], offsets: Mapping[Partition, int]) -> None:
        """Commit records, and how far was read.

        Raises Refused where the cluster takes one of them never, and TakenOver where another replay has begun: then
        nothing of this batch took place.
        """
        if not self.due:
            await self._commit(records, offsets)
            return
        now = self.clock()
        await self._commit([*records, await self._lease()], offsets)
        self._renewed = now

    async def end(self, action: str, details: Mapping[str, str]) -> None:
        """Give the lease back, and tell the audit. Raises TakenOver as `write` does."""
        await self._commit([await self.book.write(LEASE, None, 0), await self._audit(action, details)], {})

    # -------------------------------------------------------------- the lease

    def _rival(self, now: float) -> Lease | None:
        lease = self.book.states.lease
        if lease is None or lease.holder == self.holder or now - lease.renewed_ms / 1000 >= LEASE_SECONDS:
            return None
        return lease

    def _check(self) -> None:
        lease = self.book.states.lease
        if lease is not None and lease.holder == self.holder:
            return
        who = f"{lease.operator or 'somebody'} has begun replay {lease.replay}" if lease else "another replay has begun"
        raise TakenOver(f"replay {self.replay} was taken over: {who}. It ends here, and no step of it is half done")

    async def _lease(self) -> Outgoing:
        letter = Letter(
            state="replaying",
            operator=self.person.operator,
            reason=self.person.reason,
            at_ms=self._since_ms,
            assignee=self.holder,
            replay=self.replay,
        )
        return await self.book.write(LEASE, letter, 0)

    async def _audit(self, action: str, details: Mapping[str, str]) -> Outgoing:
        audit = Audit(
            action=action,
            subject=self.replay,
            operator=self.person.operator,
            reason=self.person.reason,
            at_ms=int(self.clock() * 1000),
            details=dict(details),
        )
        return await audit_record(self.codec, names.topic(self.prefix, AUDIT_NOUN), audit)

    # -------------------------------------------------------------- transactions

    async def _commit(self, records: Sequence[Outgoing], offsets: Mapping[Partition, int]) -> None:
        tries = 0
        while (error := await self._try(records, offsets)) is not None:
            if error.refused:
                raise Refused(error.refused)
            await self._rest(tries := tries + 1)
            await self.book.refresh()
            self._check()

    async def _rest(self, tries: int) -> None:
        """Wait before another try: not as long as another process does, or two would fence each other for ever."""
        await asyncio.sleep(AGAIN_SECONDS * 2 ** min(tries, 5) * spread(self.holder, tries))

    async def _try(self, records: Sequence[Outgoing], offsets: Mapping[Partition, int]) -> NotCommitted | None:
        """Commit a batch; returns why it did not take place. Raises what makes all others pointless as well."""
        # Unlike any other commit's, so that it is found out for certain whether this one took place.
        self._batches += 1
        said = f"replay {self.replay} {self.holder} {self._batches}"
        reached = offsets or {Partition(self.book.topic, 0): 0}
        commits = {name: Commit(offset, said) for name, offset in reached.items()}
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.transactions.begin(Batch(records, commits, b""), lambda error: _settle(ended, error))
        error = await ended
        if error is not None and not isinstance(error, NotCommitted):
            raise error
        return error


def busy(lease: Lease, now: float) -> str:
    """Say who replays, since when, and what to do."""
    by, heard = lease.operator or "somebody", max(0.0, now - lease.renewed_ms / 1000)
    return (
        f"{by} replays since {_time(lease.since_ms)} (replay {lease.replay}, last heard of {heard:.0f} s ago): wait"
        f" until it has ended, or until nothing was heard of it for {LEASE_SECONDS:.0f} s; --take-over ends it now"
    )


def _settle(ended: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not ended.done():
        ended.set_result(error)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

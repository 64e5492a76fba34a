"""A Kafka consumer's partitions: their coming, leaving and loss, whoever polls at that moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from pipeline.broker.commits import offsets_of
from pipeline.broker.identity import Identity
from pipeline.broker.presence import Presence
from pipeline.broker.verdicts import out_of_range, restart_at
from pipeline.core.ports import Rebalance
from pipeline.core.record import Commit, Partition
from pipeline.telemetry import logs

A = TypeVar("A")

LOOKUP_SECONDS = 2.0
# For a lookup inside a callback, which may run on the event loop. Without an answer it is made on the polling thread.
GLANCE_SECONDS = 0.2
# How long the polling thread waits for the loop to hear of a revocation. While the loop is busy nothing moves anyway;
# past this the partitions leave without a commit, and their next owner repeats.
LISTEN_SECONDS = 1.0
# How long a revocation waits for what runs, and how often it looks. Nothing is fetched meanwhile.
FINISH_SECONDS = 0.2
_LOOK_SECONDS = 0.005


class Loop(Protocol):
    """The way to the event loop from wherever the client's callbacks run."""

    @property
    def elsewhere(self) -> bool:
        """Whether the caller is not on the loop, which so goes on while the caller waits."""
        ...

    def tell(self, call: Callable[[], object]) -> None:
        """Run `call` on the loop."""
        ...

    def ask(self, call: Callable[[], A], seconds: float) -> A | None:
        """Run `call` on the loop for its answer; None where it takes too long, and then it is not run."""
        ...


class Membership:
    """Hears the client's rebalance callbacks, on the loop or on the polling thread, and answers for the owner.

    A partition counts as `owned`, and its records are read, only once it is known what the group has committed for it:
    without the metadata of the commit, work would be done twice. Until then it is `unread`.

    The owner's `Rebalance` and `forget` (drop all that is kept for these partitions; returns the offsets that waited to
    be committed) always run on the loop. `owned` is replaced, never changed, so either side may read it; `gone` and
    `moved` collect, for who empties them, which partitions left and whether anything happened.
    """

    def __init__(
        self,
        loop: Loop,
        presence: Presence,
        forget: Callable[[Sequence[Partition]], dict[Partition, Commit]],
        fail: Callable[[Exception], None],
        identity: Identity | None = None,
    ) -> None:
        """Own nothing yet. `fail` takes what the owner's own code raised; `identity` tells topics of one name apart."""
        self.owned: frozenset[Partition] = frozenset()
        self.paused: set[Partition] = set()
        self.gone: set[Partition] = set()
        self.moved = False
        self.unread: set[Partition] = set()
        self.committed_last: Mapping[Partition, Commit] = {}
        self.word: bytes | None = None
        self.asked = False
        self._loop = loop
        self._presence = presence
        self._identity = identity or Identity(None)
        self._forget = forget
        self._fail = fail
        self._rebalance: Rebalance

    def join(self, client: Consumer, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group; from now on `rebalance` hears of everything."""
        self._rebalance = rebalance
        self._presence.expect(topics)
        client.subscribe(list(topics), on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)

    # -------------------------------------------------------------- callbacks of the client

    def assigned(self, client: Consumer, parts: Sequence[TopicPartition]) -> None:
        """Start partitions where the group stands, or at their beginning where it has never been."""
        try:
            found = client.committed(list(parts), timeout=GLANCE_SECONDS) if parts else []
        except KafkaException:
            found = None
        if found is None or any(part.error is not None for part in found):
            client.incremental_assign(list(parts))
            client.pause(list(parts))
            self.paused |= _names(parts)
            self.unread |= _names(parts)
            return
        # The client wants this call for an empty list too: it ends the rebalance.
        self._begin(client, found)

    def read_again(self, client: Consumer) -> str | None:
        """Start the partitions that are `unread`; returns what hindered it. Blocks for `LOOKUP_SECONDS` at most."""
        if not self.unread:
            return None
        parts = [TopicPartition(*name) for name in sorted(self.unread)]
        try:
            found = client.committed(parts, timeout=LOOKUP_SECONDS)
        except KafkaException as error:
            return str(error.args[0].str())
        # Looked at again: the client may have lost some meanwhile.
        known = [part for part in found if part.error is None and _name(part) in self.unread]
        self.unread -= _names(known)
        if known:
            client.incremental_unassign([TopicPartition(part.topic, part.partition) for part in known])
            self._begin(client, known)
        return None

    def _begin(self, client: Consumer, found: Sequence[TopicPartition]) -> None:
        """Read partitions from what the group has committed on, and tell the owner of them."""
        self.moved = True
        commits = {_name(part): self._commit_of(part) for part in found}
        client.incremental_assign(
            [TopicPartition(*name, commit.offset if commit else OFFSET_BEGINNING) for name, commit in commits.items()]
        )
        stale = self.paused.intersection(commits)
        if stale:
            # librdkafka keeps the mark of a pause even while a partition is somebody else's.
            client.resume([TopicPartition(*name) for name in stale])
            self.paused -= stale
        self.owned |= frozenset(commits)
        self._presence.seen(name.topic for name in commits)
        if commits:
            self._loop.tell(partial(self._guarded, partial(self._rebalance.assigned, commits)))

    def _commit_of(self, part: TopicPartition) -> Commit | None:
        metadata = self._identity.begin(_name(part), part.metadata or "")
        return Commit(part.offset, metadata) if part.offset >= 0 else None

    def begin_anew(self, client: Consumer) -> frozenset[Partition]:
        """Read topics that were deleted and made again from their beginning; returns their partitions.

        What was in hand of them is dropped as for a lost partition: it is of a topic that is no more. Blocks.
        """
        stale = self.owned.intersection(self._identity.look())
        if not stale:
            return stale
        parts = [TopicPartition(*name) for name in sorted(stale)]
        topics = sorted({name.topic for name in stale})
        logs.get().warning(
            f"{', '.join(topics)} was deleted and made again: {len(parts)} partitions are read from their beginning",
            action="topic_made_again",
            topics=topics,
        )
        self._loop.tell(partial(self._let_go, self._drop(parts)))
        client.incremental_unassign(parts)
        self._begin(client, parts)
        self._identity.look()
        return stale

    def revoked(self, client: Consumer, parts: Sequence[TopicPartition]) -> None:
        """Commit what the owner says of partitions that leave. The client takes them away when this returns."""
        names = self._drop(parts)
        if not names:
            return
        if self._loop.elsewhere:
            self._let_finish(names)
        self.introduce(client)  # a classic group has a new generation by now
        offsets = self._loop.ask(partial(self._release, names), LISTEN_SECONDS)
        if offsets is None:
            logs.get().warning(
                f"{len(names)} partitions left without a commit, for the event loop did not answer within"
                f" {LISTEN_SECONDS:g} s: their next owner repeats",
                action="revoked_uncommitted",
            )
            self._loop.tell(partial(self._let_go, names))
            self._identity.forget(names)
            return
        last = self.committed_last
        self._commit(client, {name: at for name, at in offsets.items() if last.get(name) != at})
        self._identity.forget(names)

    def lost(self, _client: Consumer, parts: Sequence[TopicPartition]) -> None:
        """Tell the owner of partitions that are gone: the group went on without us. Commits nothing."""
        names = self._drop(parts)
        self.word = None
        if not names:
            return
        logs.get().warning(
            f"{len(names)} partitions were lost: the group went on without this member", action="partitions_lost"
        )
        self._identity.forget(names)
        self._loop.tell(partial(self._let_go, names))

    def introduce(self, client: Consumer) -> None:
        """Look up who this member is, if anybody has asked for it: the client asks another thread of its own."""
        if self.asked:
            self.word = known_member(client.consumer_group_metadata())

    # -------------------------------------------------------------- positions

    def bring_back(self, client: Consumer, group: str, name: Partition, position: int | None) -> None:
        """Start a partition again whose position the log does not have; raises Halt where only a person can say where.

        Blocks. Raises KafkaException where no broker answers.
        """
        if name not in self.owned:
            return
        part = TopicPartition(*name)
        low, high = client.get_watermark_offsets(part, timeout=LOOKUP_SECONDS)
        found = client.committed([part], timeout=LOOKUP_SECONDS)[0].offset
        committed = found if found >= 0 else None
        start = restart_at(position, committed, low, high)
        if start is None:
            at = position if position is not None else committed
            raise out_of_range(group, name, at or 0, low, high)
        # `seek` is refused here: the client has stopped fetching the partition.
        client.incremental_unassign([part])
        client.incremental_assign([TopicPartition(*name, start)])

    # -------------------------------------------------------------- the owner, on the loop

    def _drop(self, parts: Sequence[TopicPartition]) -> list[Partition]:
        self.moved = True
        told = _names(parts) & self.owned
        self.unread -= _names(parts)
        self.owned = self.owned - told
        self.gone.update(told)
        return sorted(told)

    def _let_finish(self, names: Sequence[Partition]) -> None:
        """Wait a moment for what runs for partitions that leave: else their next owner would do it again."""
        end = time.monotonic() + FINISH_SECONDS
        busy = partial(self._guarded, partial(self._rebalance.leaving, names))
        while self._loop.ask(busy, LISTEN_SECONDS) and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)

    def _release(self, names: Sequence[Partition]) -> dict[Partition, Commit]:
        offsets = self._forget(names)
        answer = self._guarded(partial(self._rebalance.revoked, names)) or {}
        return {**offsets, **{name: at for name, at in answer.items() if name in names}}

    def _let_go(self, names: Sequence[Partition]) -> None:
        self._forget(names)
        self._guarded(partial(self._rebalance.lost, names))

    def _commit(self, client: Consumer, offsets: Mapping[Partition, Commit]) -> None:
        """Send a commit and do not wait for it, for this may be the event loop: a synchronous one blocks for minutes
        where the coordinator is stuck. The client gives partitions back only after its commits have ended
        (`rd_kafka_assignment_serve`), so their next owner finds this one.
        """
        if not offsets or not self._presence.connected:
            return
        try:
            client.commit(offsets=offsets_of(self._identity.stamped(offsets)), asynchronous=True)
        except KafkaException as failed:
            logs.get().warning(
                f"the commit at a revocation failed: {failed.args[0].str()}", action="revoked_uncommitted"
            )

    def _guarded(self, call: Callable[[], A]) -> A | None:
        """Run the owner's code. Its exception must not reach the client, which would raise it in some other call."""
        try:
            return call()
        except Exception as error:
            self._fail(error)
            return None


def known_member(metadata: bytes) -> bytes | None:
    """Return a client's group metadata if they name a member of a generation; None otherwise.

    A member that was put out has generation -1 or no id, and a broker takes that for a client from before KIP-447,
    which it does not fence. librdkafka writes: a magic word, the generation, group, NUL, member id, NUL, ...
    """
    magic, colon, rest = metadata.partition(b":")
    if not magic.startswith(b"CGMD") or not colon or len(rest) < 4:
        return None
    generation = int.from_bytes(rest[:4], sys.byteorder, signed=True)
    return metadata if generation >= 0 and member_id(metadata) else None


def member_id(metadata: bytes) -> str:
    """Return the id in a client's group metadata, as `known_member` describes them; empty where there is none."""
    _magic, _colon, rest = metadata.partition(b":")
    _group, _nul, after = rest[4:].partition(b"\0")
    return after.partition(b"\0")[0].decode("ascii", "replace")


def _name(part: TopicPartition) -> Partition:
    return Partition(part.topic, part.partition)


def _names(parts: Sequence[TopicPartition]) -> frozenset[Partition]:
    return frozenset(map(_name, parts))

"""A Kafka consumer's commits: sent without waiting, sent again where they fail, and made certain at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.broker.identity import Identity
from pipeline.broker.presence import Presence
from pipeline.broker.verdicts import forbidden, in_rebalance, meaning
from pipeline.broker.wishes import Wishes
from pipeline.core.record import Commit, Partition
from pipeline.telemetry import logs

RECOMMIT_SECONDS = 1.0
# A commit that met the end of its coordinator may be answered after minutes, or never. With nothing newer to commit the
# group would stand still meanwhile, so it is sent again; to commit the same twice does no harm. For so long the next
# one for its partition waits: the client itself tries a commit again that its coordinator did not take, and such an
# older one would otherwise come after a newer one, and take the group back (seen where a coordinator came back).
UNHEARD_SECONDS = 5.0
LAST_COMMIT_SECONDS = 5.0
_SLICE_SECONDS = 0.05


def offsets_of(offsets: Mapping[Partition, Commit]) -> list[TopicPartition]:
    """Return what is to be committed as the client takes it; it refuses metadata of no length."""
    return [
        TopicPartition(*name, commit.offset, commit.metadata)
        if commit.metadata
        else TopicPartition(*name, commit.offset)
        for name, commit in offsets.items()
    ]


class Commits:
    """Sends what `wishes` has to commit. The client reports each end to `heard`, on whichever side polls it.

    `reached` is how far commits are acknowledged: replaced by each answer, so either side may read it.
    `tell` runs a call on the event loop, `fail` takes the verdict on a group that may not be used.
    """

    def __init__(
        self,
        wishes: Wishes,
        presence: Presence,
        tell: Callable[[Callable[[], object]], None],
        fail: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        identity: Identity | None = None,
    ) -> None:
        """Send nothing yet. `clock` is in seconds; `identity` stamps what is sent."""
        self._wishes = wishes
        self._presence = presence
        self._tell = tell
        self._fail = fail
        self._clock = clock
        self._identity = identity or Identity(None)
        self._not_before = 0.0
        self._unheard: dict[Partition, tuple[int, float]] = {}
        self.reached: dict[Partition, int] = {}
        self._final: dict[Partition, int] | None = None
        self._answers: list[KafkaError | None] = []

    def send(self, client: Consumer, owned: Collection[Partition]) -> None:
        """Send what waits, except shortly after a failure, and one commit for a partition after the other."""
        if not (self._wishes.commits or self._unheard) or (now := self._clock()) < self._not_before:
            return
        late = {name: offset for name, (offset, since) in self._unheard.items() if now - since >= UNHEARD_SECONDS}
        self._wishes.recommit(late)
        offsets = self._wishes.take_commits(owned, self._unheard.keys() - late.keys())
        if not offsets:
            return
        try:
            client.commit(offsets=offsets_of(self._identity.stamped(offsets)), asynchronous=True)
        except KafkaException as error:
            self._failed(error.args[0], {name: commit.offset for name, commit in offsets.items()})
        else:
            self._unheard.update({name: (commit.offset, now) for name, commit in offsets.items()})

    def heard(self, error: KafkaError | None, parts: Sequence[TopicPartition]) -> None:
        """Learn how a commit ended: the client's `on_commit`."""
        errors = [part.error for part in parts if part.error is not None]
        why = error or (errors[0] if errors else None)
        if why is None:
            self._presence.seen()
        offsets = {Partition(part.topic, part.partition): part.offset for part in parts}
        for name, offset in offsets.items():
            if self._unheard.get(name, (offset, 0.0))[0] == offset:
                self._unheard.pop(name, None)
        if self._final is not None:
            if offsets == self._final:
                self._answers.append(why)
        elif why is not None:
            self._tell(partial(self._failed, why, offsets))
        else:
            self.reached = {**self.reached, **offsets}

    def forget(self, partitions: Collection[Partition]) -> None:
        """Forget how far partitions came that have left."""
        self._unheard = {name: sent for name, sent in self._unheard.items() if name not in partitions}
        self.reached = {name: offset for name, offset in self.reached.items() if name not in partitions}

    def finish(self, client: Consumer, offsets: Mapping[Partition, Commit]) -> bool:
        """Commit for certain, before the member leaves; tries for `LAST_COMMIT_SECONDS`. Says whether it succeeded.

        Blocks, and drops the records it polls: nobody will take them.
        """
        self._final = {name: commit.offset for name, commit in offsets.items()}
        end = self._clock() + LAST_COMMIT_SECONDS
        while offsets and self._clock() < end:
            self._answers.clear()
            client.commit(offsets=offsets_of(self._identity.stamped(offsets)), asynchronous=True)
            while not self._answers and self._clock() < end:
                client.poll(_SLICE_SECONDS)
            if self._answers and self._answers[0] is None:
                return True
            client.poll(_SLICE_SECONDS)
        return not offsets

    def _failed(self, error: KafkaError, offsets: Mapping[Partition, int]) -> None:
        self._not_before = self._clock() + RECOMMIT_SECONDS
        self._wishes.recommit(offsets)
        if meaning(error) == "forbidden":
            self._fail(forbidden(error, self._presence.group, None))
        elif in_rebalance(error):
            logs.get().debug(f"a commit met a rebalance: {error.str()}", action="commit_skipped")
        else:
            logs.get().warning(f"a commit failed and is sent again: {error.str()}", action="commit_failed")

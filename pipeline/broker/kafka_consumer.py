"""The port `Consumer` on a real cluster.

A gate in confluent-kafka serialises all calls of one consumer: while a thread waits in `poll`, a `commit` or `pause`
from another waits for seconds. So exactly one side has the client in hand at any time. While records flow that is the
event loop, which takes them in batches without waiting; with nothing to take, a thread waits for the next record and
hands the client back with it. The loop is woken once for that, never once for each record.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.broker.client import new_client
from pipeline.broker.commits import Commits
from pipeline.broker.config import KafkaConfig
from pipeline.broker.handover import Handover
from pipeline.broker.identity import Identity, Ids
from pipeline.broker.membership import Membership, member_id
from pipeline.broker.presence import Presence
from pipeline.broker.reading import records_of
from pipeline.broker.verdicts import broken, forbidden, meaning
from pipeline.broker.wishes import Wishes
from pipeline.core.ports import Rebalance
from pipeline.core.record import Commit, Partition, Record
from pipeline.telemetry import logs

# How late a wish may be noticed while the thread waits. Twenty wake-ups a second cost a thousandth of a core.
SLICE_SECONDS = 0.05
LOOK_SECONDS = 0.05
# The client counts in whole milliseconds: a wait for less would not wait at all, and spin.
_TICK_SECONDS = 0.001
CLOSE_SECONDS = 10.0
# After a resume or a rebalance librdkafka leaves the threads that fetch asleep for up to a second, until anything is
# asked of their broker. So something is: the first record comes after 6 ms instead of 350 (measured). It is asked a few
# times, shortly after one another, for the client resumes partitions some time after a callback has returned.
STIRS = 3
STIR_SECONDS = 0.02
_ANSWER_SECONDS = 0.5
_FAR_FUTURE_MS = 1 << 52


class KafkaConsumer:
    """One member of a consumer group. Made on the running loop; `open_consumer` also closes it.

    `fetch` does not give way to other tasks while records are waiting: who fetches in a loop does.
    `positions` tell how things stood when the last `fetch` began, so they are never ahead of a record that its caller
    has not got.
    """

    def __init__(self, config: KafkaConfig, group: str, ids: Ids | None = None) -> None:
        """Make the client, which connects in the background. Raises ConfigurationError where it refuses a property.

        `ids` tells a topic from another one that had its name before.
        """
        self._group = group
        self._presence = Presence(group)
        self._wishes = Wishes()
        self._handover: Handover[Message] = Handover(f"kafka {group}", self._back)
        self._identity = identity = Identity(ids)
        self._commits = Commits(self._wishes, self._presence, self._handover.tell, self._fail, identity=identity)
        self._member = Membership(self._handover, self._presence, self._forget, self._fail, identity)
        self._client = _client(config, group, self._event, self._commits.heard)
        self._called = False
        self._held: list[Message] = []
        self._astray: dict[Partition, int | None] = {}
        self._positions: dict[Partition, int] = {}
        self._look_again = 0.0
        self._stirs = 0
        self._failure: Exception | None = None
        self._leaving: asyncio.Future[None] | None = None

    # -------------------------------------------------------------- the port

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group for `topics`. A topic that does not exist yet is waited for, and named in the log."""
        self._member.join(self._client, topics, rebalance)

    async def fetch(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return up to `limit` records as soon as there is one, or none after about `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self._handover.home:  # a fetch before this one was cancelled
            await self._handover.returned()
        if self._leaving is None and (self._astray or self._member.unread):
            await self._elsewhere(self._bring_back)
        if self._leaving is None and self._identity.due():
            await self._elsewhere(self._begin_anew)
        while self._leaving is None:
            if records := self._take(limit):
                return records
            if deadline - time.monotonic() <= _TICK_SECONDS:
                break
            await self._elsewhere(partial(self._watch, deadline))
        return ()

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop fetching from `partitions`; what was prefetched for them is fetched again later."""
        self._wishes.pause(partitions)
        self._called = True

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Go on fetching from `partitions`."""
        self._wishes.resume(partitions)
        self._called = True

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` soon. What fails is sent again after a second, unless something newer was."""
        self._wishes.commit(offsets)
        self._called = True

    def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return how far commits of this member are acknowledged."""
        reached = self._commits.reached
        return {name: reached[name] for name in partitions if name in reached}

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return where reading stood when the last `fetch` began."""
        known = self._positions
        return {name: known[name] for name in partitions if name in known}

    async def close(self, offsets: Mapping[Partition, Commit]) -> None:
        """Commit `offsets` and what still waits to be committed, and leave the group.

        Without a broker this gives up after a few seconds and says so in the log: the next owner repeats.
        """
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave(offsets))
        await asyncio.shield(self._leaving)

    def missing(self) -> Sequence[str]:
        """Name the subscribed topics that are known not to exist."""
        return self._presence.missing

    def connected(self) -> bool:
        """Whether a broker has answered since the client last found all of them away."""
        return self._presence.connected

    def membership(self) -> bytes | None:
        """Return what was looked up with the last `fetch`, or at a revocation."""
        self._member.asked = True
        return self._member.word

    def name(self) -> str:
        """Return the member id that was looked up with the last `fetch`, or at a revocation."""
        word = self.membership()
        return member_id(word) if word else ""

    # -------------------------------------------------------------- on the loop

    def _take(self, limit: int) -> list[Record]:
        """Carry out the wishes and take what is there. Rebalances may happen in here, inside `consume`."""
        if self._failure is not None:
            raise self._failure
        self._called = False
        self._pause_and_resume()
        looked = self._look()
        gone = self._member.gone
        gone.clear()
        taken = self._client.consume(max(limit - len(self._held), 1), 0)
        if gone:
            # What was held of these has been dropped by `_forget`. A partition comes back only after an answer from
            # the coordinator, and this `consume` waits for none: all it returned of them is from before.
            taken = [message for message in taken if _name(message) not in gone]
        if looked:
            self._member.introduce(self._client)  # after `consume`, which tells a member first what it has lost
        if self._held:
            taken = self._ready() + taken
        # After `consume`, so that a process that was stopped for long hears first what it has lost.
        self._commits.send(self._client, self._member.owned)
        return self._records(taken) if taken else []

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        records = records_of(messages, self._event)
        if records:
            self._presence.heard = True
            if not self._presence.connected:
                self._presence.seen()
        return records

    def _ready(self) -> list[Message]:
        """Take what a cancelled fetch has left, except of partitions that were paused since."""
        paused = self._member.paused
        ready = [message for message in self._held if _name(message) not in paused]
        self._held = [message for message in self._held if _name(message) in paused]
        return ready

    def _pause_and_resume(self) -> None:
        member = self._member
        pauses, resumes = self._wishes.take_pauses(member.owned, member.paused)
        if pauses:
            self._client.pause([TopicPartition(*name) for name in pauses])
            member.paused.update(pauses)
        if resumes:
            self._client.resume([TopicPartition(*name) for name in resumes])
            member.paused.difference_update(resumes)
            self._stirs = STIRS

    def _look(self) -> bool:
        """Look up the positions, if it was not done just now; says whether it was done."""
        now = time.monotonic()
        if now < self._look_again:
            return False
        self._look_again = now + LOOK_SECONDS
        held = {_name(message) for message in self._held}
        parts = [TopicPartition(*name) for name in self._member.owned if name not in held]
        found = self._client.position(parts) if parts else []
        self._positions = {Partition(part.topic, part.partition): part.offset for part in found if part.offset >= 0}
        return True

    def _forget(self, names: Sequence[Partition]) -> dict[Partition, Commit]:
        """Drop all that is kept for partitions that leave; returns the offsets that waited to be committed."""
        gone = set(names)
        self._held = [message for message in self._held if _name(message) not in gone]
        for name in gone:
            self._positions.pop(name, None)
            self._astray.pop(name, None)
        self._commits.forget(gone)
        return self._wishes.forget(names)

    def _back(self, message: Message | None, failure: Exception | None) -> None:
        """Take the client back from the thread, with the record it found."""
        if message is not None:
            self._held.append(message)
        if failure is not None:
            self._fail(failure)

    async def _elsewhere(self, job: Callable[[], Message | None]) -> None:
        self._handover.give(job)
        await self._handover.returned()

    async def _leave(self, offsets: Mapping[Partition, Commit]) -> None:
        self._called = True
        await self._handover.returned()
        self._wishes.commit(offsets)
        self._handover.give(partial(self._depart, self._wishes.take_commits(self._member.owned)))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._handover.returned()
        except TimeoutError:
            logs.get(group=self._group).warning(
                f"Kafka did not answer for {CLOSE_SECONDS:g} s: left the group without a word", action="left_unheard"
            )
        self._handover.stop()

    # -------------------------------------------------------------- on the thread

    def _watch(self, deadline: float) -> Message | None:
        """Wait for a record, for a wish, or until `deadline`."""
        member, presence = self._member, self._presence
        while (left := deadline - time.monotonic()) > _TICK_SECONDS and not self._called:
            if presence.due() and (halt := presence.probe(self._client)) is not None:
                raise halt
            if member.moved:
                member.moved, self._stirs = False, STIRS
            message = self._client.poll(min(left, self._stir() if self._stirs else SLICE_SECONDS))
            # A revocation inside `poll` does not empty its queue: what it returns then may be somebody else's.
            if message is not None and (message.error() is not None or _name(message) in member.owned):
                return message
        return None

    def _stir(self) -> float:
        """Ask the leader of every partition that should flow for something; returns how long to wait for the effect."""
        self._stirs -= 1
        flowing = [TopicPartition(*name, _FAR_FUTURE_MS) for name in self._member.owned - self._member.paused]
        if flowing and self._presence.connected:
            with contextlib.suppress(KafkaException):
                self._client.offsets_for_times(flowing, timeout=_ANSWER_SECONDS)
        return STIR_SECONDS

    def _bring_back(self) -> Message | None:
        """Start partitions that stand outside their log, or of which the group did not say where they stand."""
        if (reason := self._member.read_again(self._client)) is not None:
            self._presence.away(reason)
        astray, self._astray = self._astray, {}
        anew = self._member.begin_anew(self._client) if astray else frozenset()
        for name, position in astray.items():
            if name in anew:
                continue
            try:
                self._member.bring_back(self._client, self._group, name, position)
            except KafkaException as error:
                self._astray[name] = position
                self._presence.away(error.args[0].str())
        return None

    def _begin_anew(self) -> Message | None:
        self._member.begin_anew(self._client)
        return None

    def _depart(self, offsets: Mapping[Partition, Commit]) -> Message | None:
        self._member.committed_last = offsets
        if not self._commits.finish(self._client, offsets):
            logs.get(group=self._group).warning(
                f"left without the last commit of {len(offsets)} partitions, for Kafka did not answer: their next owner"
                " repeats",
                action="left_uncommitted",
            )
        self._client.close()
        return None

    # -------------------------------------------------------------- on either side

    def _event(self, error: KafkaError, message: Message | None = None) -> None:
        """Hear of an error: the client's `error_cb`, or in the place of a record."""
        topic = message.topic() if message is not None else None
        match meaning(error):
            case "nothing" | "missing":  # Presence finds missing topics, and names them
                pass
            case "away":
                self._presence.away(error.str())
            case "astray" if message is not None and topic is not None:
                offset = message.offset()
                self._astray[_name(message)] = offset if offset is not None and offset >= 0 else None
            case "forbidden":
                self._fail(forbidden(error, self._group, topic))
            case "fatal":
                self._fail(broken(error, self._group))
            case _:
                logs.get(group=self._group).warning(error.str(), action="kafka_event", code=error.name(), topic=topic)

    def _fail(self, failure: Exception) -> None:
        """Keep what the next `fetch` raises; the first failure is the cause of the others."""
        self._failure = self._failure or failure


def _name(message: Message) -> Partition:
    return Partition(message.topic() or "", message.partition() or 0)


def _client(
    config: KafkaConfig,
    group: str,
    happened: Callable[[KafkaError], None],
    committed: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> Consumer:
    properties = {**config.consumer(group), "error_cb": happened, "on_commit": committed}
    return new_client(Consumer, config, properties)


@asynccontextmanager
async def open_consumer(config: KafkaConfig, group: str, ids: Ids | None = None) -> AsyncIterator[KafkaConsumer]:
    """A member of `group` that leaves it with the block, if it has not been closed with its last offsets before."""
    consumer = KafkaConsumer(config, group, ids)
    try:
        yield consumer
    finally:
        await consumer.close({})

"""Rebalances: what a client is told, and what the owner hears."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.broker.client_log import ClientLog
from pipeline.broker.identity import Identity
from pipeline.broker.membership import Membership, known_member
from pipeline.broker.presence import Presence
from pipeline.core.errors import Halt
from pipeline.core.record import Commit, Partition

T = TypeVar("T")
A, B = Partition("t", 0), Partition("t", 1)


def failure(code: int) -> KafkaException:
    """What the client raises."""
    return KafkaException(KafkaError(code))


@dataclass
class Client:
    """Keeps what it is told; the group's offsets and the log's ends are given."""

    stands: dict[Partition, int] = field(default_factory=dict)
    log: tuple[int, int] = (0, 100)
    broken: KafkaException | None = None
    done: list[tuple[str, list[tuple[int, int]]]] = field(default_factory=list)

    def committed(self, parts: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        """Look up, or fail."""
        if self.broken:
            raise self.broken
        return [
            TopicPartition(p.topic, p.partition, self.stands.get(Partition(p.topic, p.partition), -1001)) for p in parts
        ]

    def get_watermark_offsets(self, part: TopicPartition, timeout: float) -> tuple[int, int]:
        """The ends of the log."""
        return self.log

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        """Keep, or fail."""
        assert asynchronous, "it would block the loop"
        self._keep("commit", offsets)
        if self.broken:
            raise self.broken

    def incremental_assign(self, parts: list[TopicPartition]) -> None:
        """Keep."""
        self._keep("assign", parts)

    def incremental_unassign(self, parts: list[TopicPartition]) -> None:
        """Keep."""
        self._keep("unassign", parts)

    def pause(self, parts: list[TopicPartition]) -> None:
        """Keep."""
        self._keep("pause", parts)

    def resume(self, parts: list[TopicPartition]) -> None:
        """Keep."""
        self._keep("resume", parts)

    def subscribe(self, topics: list[str], **callbacks: object) -> None:
        """Keep nothing."""

    def _keep(self, what: str, parts: list[TopicPartition]) -> None:
        self.done.append((what, [(part.partition, part.offset) for part in parts]))


@dataclass
class Owner:
    """Hears; answers with offsets or an exception."""

    offsets: dict[Partition, Commit] = field(default_factory=dict)
    error: Exception | None = None
    heard: list[tuple[str, list[int]]] = field(default_factory=list)
    found: dict[Partition, Commit | None] = field(default_factory=dict)
    looks: float = 0

    def assigned(self, partitions: Mapping[Partition, Commit | None]) -> None:
        """Hear of partitions."""
        self._hear("assigned", list(partitions))
        self.found.update(partitions)

    def leaving(self, partitions: Sequence[Partition]) -> bool:
        """Something runs for so many looks."""
        self._hear("leaving", partitions)
        self.looks -= 1
        return self.looks >= 0

    def revoked(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Hear of their leaving."""
        self._hear("revoked", partitions)
        return self.offsets

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Hear of their loss."""
        self._hear("lost", partitions)

    def _hear(self, what: str, partitions: Sequence[Partition]) -> None:
        self.heard.append((what, [name.number for name in partitions]))
        if self.error:
            raise self.error


class Here:
    """A loop that is where the caller is, unless it is `elsewhere`; `deaf` it does not answer."""

    deaf = False
    elsewhere = False

    def tell(self, call: Callable[[], object]) -> None:
        """Call."""
        call()

    def ask(self, call: Callable[[], T], seconds: float) -> T | None:
        """Call, unless deaf."""
        return None if self.deaf else call()


class Group:
    """A member of a group, with everything around it."""

    def __init__(self) -> None:
        """Join."""
        self.fake, self.owner, self.loop = Client(), Owner(), Here()
        self.client = cast(Consumer, self.fake)
        self.waiting: dict[Partition, Commit] = {}
        self.failures: list[Exception] = []
        self.presence = Presence("g")
        self.ids: dict[str, str] = {}
        identity = Identity(lambda _: self.ids)
        self.member = Membership(self.loop, self.presence, self.forget, self.failures.append, identity)
        self.member.join(self.client, ["t"], self.owner)

    def forget(self, names: Sequence[Partition]) -> dict[Partition, Commit]:
        """What still waited to be committed."""
        return {name: self.waiting.pop(name) for name in names if name in self.waiting}

    def assign(self, *names: Partition) -> None:
        """Let partitions come."""
        self.member.assigned(self.client, _parts(names))

    def revoke(self, *names: Partition) -> None:
        """Let partitions go."""
        self.member.revoked(self.client, _parts(names))


def _parts(names: Sequence[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*name) for name in names]


@pytest.fixture
def group() -> Group:
    """A new member."""
    return Group()


def test_start_is_explicit(group: Group) -> None:
    """A partition starts where the group stands, or at its beginning where the group has never been."""
    group.fake.stands = {A: 5}
    group.assign(A, B)
    assert group.fake.done == [("assign", [(0, 5), (1, OFFSET_BEGINNING)])]
    assert group.member.owned == {A, B}
    assert group.owner.heard == [("assigned", [0, 1])]
    assert group.presence.connected


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR])
def test_start_that_cannot_be_looked_up(group: Group, code: int) -> None:
    """Where no coordinator answers nothing is read, and the owner hears nothing, until it is known where to begin."""
    group.fake.broken, group.fake.stands = failure(code), {A: 5}
    group.assign(A)
    assert group.fake.done == [("assign", [(0, -1001)]), ("pause", [(0, -1001)])]
    assert group.member.read_again(group.client) is not None
    assert (group.owner.heard, group.member.owned) == ([], frozenset())
    group.fake.broken = None
    group.fake.done.clear()
    assert group.member.read_again(group.client) is None
    assert group.fake.done == [("unassign", [(0, -1001)]), ("assign", [(0, 5)]), ("resume", [(0, -1001)])]
    assert group.owner.found == {A: Commit(5)}
    assert group.member.owned == {A}


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_what_was_never_known_leaves_in_silence(group: Group, how: str) -> None:
    """A partition that leaves before it was known where it stands was never the owner's, and nothing is committed."""
    group.fake.broken = failure(KafkaError._TIMED_OUT)
    group.assign(A)
    group.fake.broken = None
    group.fake.done.clear()
    leave = group.member.revoked if how == "revoke" else group.member.lost
    leave(group.client, [TopicPartition(*A)])
    assert group.member.read_again(group.client) is None
    assert (group.owner.heard, group.fake.done) == ([], [])


def test_what_was_never_known_flows_when_it_comes_back(group: Group) -> None:
    """It was paused until it would be known where it stands, and the client keeps that mark while it is away."""
    group.fake.broken = failure(KafkaError._TIMED_OUT)
    group.assign(A)
    group.member.revoked(group.client, [TopicPartition(*A)])
    group.fake.broken = None
    group.fake.done.clear()
    group.assign(A)
    assert group.fake.done == [("assign", [(0, OFFSET_BEGINNING)]), ("resume", [(0, -1001)])]
    assert group.member.paused == set()


def test_empty_assignment(group: Group) -> None:
    """An empty assignment is acknowledged, for it ends a rebalance; the owner hears nothing."""
    group.assign()
    assert group.fake.done == [("assign", [])]
    group.revoke()
    assert group.owner.heard == []


def test_pause_does_not_survive(group: Group) -> None:
    """A partition that was paused when it left starts to flow when it comes back."""
    group.assign(A, B)
    group.member.paused = {A, B}
    group.revoke(A)
    group.fake.done.clear()
    group.assign(A)
    assert ("resume", [(0, -1001)]) in group.fake.done
    assert group.member.paused == {B}


def test_revocation_commits_both(group: Group) -> None:
    """The owner's word is committed, and what still waited; the owner's is newer. Others' partitions are left alone."""
    group.assign(A, B)
    group.fake.done.clear()
    group.owner.offsets = {A: Commit(7), Partition("t", 9): Commit(1)}
    group.waiting = {A: Commit(5), B: Commit(3)}
    group.revoke(A, B)
    assert group.fake.done == [("commit", [(0, 7), (1, 3)])]
    assert group.member.owned == frozenset()
    assert group.member.gone == {A, B}


def test_revocation_without_a_broker(group: Group) -> None:
    """Nothing is committed while the broker is away: the call would block the loop for a whole session."""
    group.assign(A)
    group.fake.done.clear()
    group.presence.away("down")
    group.owner.offsets = {A: Commit(7)}
    group.revoke(A)
    assert group.fake.done == []
    assert group.owner.heard[-1] == ("revoked", [0])


@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError.NETWORK_EXCEPTION])
def test_revocation_whose_commit_fails(group: Group, code: int) -> None:
    """A commit that fails at a revocation does not stop it: the next owner repeats."""
    group.assign(A)
    group.fake.broken = failure(code)
    group.owner.offsets = {A: Commit(7)}
    group.revoke(A)
    assert group.member.owned == frozenset()
    assert group.failures == []


def test_revocation_of_what_was_committed_last(group: Group) -> None:
    """What was committed for certain just before is not committed again."""
    group.assign(A)
    group.fake.done.clear()
    group.member.committed_last = {A: Commit(7)}
    group.owner.offsets = {A: Commit(7)}
    group.revoke(A)
    assert group.fake.done == []


def test_revocation_that_the_loop_misses(group: Group) -> None:
    """Where the loop does not listen in time nothing is committed, and the owner hears that the partitions are lost."""
    group.assign(A)
    group.fake.done.clear()
    group.waiting = {A: Commit(5)}
    group.loop.deaf = True
    group.revoke(A)
    assert group.fake.done == []
    assert group.owner.heard[-1] == ("lost", [0])
    assert group.waiting == {}


def test_loss(group: Group) -> None:
    """Lost partitions are forgotten, and nothing is committed for them."""
    group.assign(A)
    group.fake.done.clear()
    group.waiting = {A: Commit(5)}
    group.owner.offsets = {A: Commit(7)}
    group.member.lost(group.client, _parts([A]))
    assert group.fake.done == []
    assert group.owner.heard[-1] == ("lost", [0])
    assert group.waiting == {}
    assert group.member.owned == frozenset()


def test_owner_that_raises(group: Group) -> None:
    """The owner's exception is kept for its next fetch; what waited to be committed is committed all the same."""
    group.assign(A)
    group.fake.done.clear()
    group.owner.error = ZeroDivisionError("broken")
    group.waiting = {A: Commit(5)}
    group.revoke(A)
    assert group.failures == [group.owner.error]
    assert group.fake.done == [("commit", [(0, 5)])]


@pytest.mark.parametrize(
    "position,stands,start", [(None, {}, 10), (None, {A: 40}, 40), (50, {A: 40}, 50), (20, {}, 20)]
)
def test_bring_back(group: Group, position: int | None, stands: dict[Partition, int], start: int) -> None:
    """A partition that lost its position for no reason goes on where it stood, or where the group stands."""
    group.assign(A)
    group.fake.done.clear()
    group.fake.stands, group.fake.log = stands, (10, 100)
    group.member.bring_back(group.client, "g", A, position)
    assert group.fake.done == [("unassign", [(0, -1001)]), ("assign", [(0, start)])]


@pytest.mark.parametrize("position,stands", [(None, {A: 5}), (None, {A: 200}), (5, {A: 40})])
def test_bring_back_out_of_range(group: Group, position: int | None, stands: dict[Partition, int]) -> None:
    """A position outside the log is for a person to mend: nothing is skipped silently."""
    group.assign(A)
    group.fake.done.clear()
    group.fake.stands, group.fake.log = stands, (10, 100)
    with pytest.raises(Halt, match=r"\[10, 100\)"):
        group.member.bring_back(group.client, "g", A, position)
    assert group.fake.done == []


def test_bring_back_of_what_has_gone(group: Group) -> None:
    """A partition that has left in the meantime is not touched."""
    group.member.bring_back(cast(Any, None), "g", A, None)
    assert group.fake.done == []


def word(generation: int, member: bytes) -> bytes:
    """Group metadata as librdkafka writes them."""
    return b"CGMDv2:" + generation.to_bytes(4, sys.byteorder, signed=True) + b"group\0" + member + b"\0\1"


@pytest.mark.parametrize(
    "metadata,known",
    [
        (word(3, b"member"), True),
        (word(0, b"member"), True),
        (word(-1, b"member"), False),
        (word(3, b""), False),
        (word(-1, b""), False),
        (b"CGMDv2:", False),
        (b"", False),
        (b"of another client:" + bytes(20), False),
    ],
)
def test_only_a_member_of_a_generation_is_known(metadata: bytes, known: bool) -> None:
    """A broker does not fence offsets of nobody in particular, so they must never be sent."""
    assert known_member(metadata) == (metadata if known else None)


def test_the_clients_own_metadata_are_understood() -> None:
    """What librdkafka says of a consumer that has not joined is nobody."""
    consumer = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}, logger=ClientLog())
    assert consumer.consumer_group_metadata().startswith(b"CGMDv2:")
    assert known_member(consumer.consumer_group_metadata()) is None
    consumer.close()


def test_topic_that_was_made_again(group: Group) -> None:
    """Its partitions are lost to the owner, and come back at their beginning; others are left alone."""
    other = Partition("u", 0)
    group.assign(A, other)
    group.ids = {"t": "o" * 22, "u": "u" * 22}
    assert group.member.begin_anew(group.client) == set()
    group.fake.done.clear()
    group.ids["t"] = "n" * 22
    group.waiting = {A: Commit(5)}
    assert group.member.begin_anew(group.client) == {A}
    assert group.fake.done == [("unassign", [(0, -1001)]), ("assign", [(0, OFFSET_BEGINNING)])]
    assert group.owner.heard[-2:] == [("lost", [0]), ("assigned", [0])]
    assert not group.waiting
    assert group.member.owned == {A, other}
    assert group.member.begin_anew(group.client) == set()

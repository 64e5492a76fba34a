"""Consumer groups in memory: who owns which partition, decided as Kafka does and always in the same way.

Partitions move one by one: a new owner gets a partition only after the old one has given it up. Pure: no time, no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.record import Commit, Partition


@dataclass(frozen=True, slots=True)
class Member:
    """One member: what it reads, and how it hears that its share has changed."""

    topics: frozenset[str]
    wake: Callable[[], None]


def balance(
    partitions: Iterable[Partition], members: Mapping[int, Collection[str]], owners: Mapping[Partition, int]
) -> dict[Partition, int]:
    """Give every partition to a member that reads its topic, evenly, and move as few as that allows.

    `members` are topics by member, in the order in which they joined; `owners` is who has what now. Partitions that
    nobody reads are left out.
    """
    shares: dict[int, list[Partition]] = {member: [] for member in members}
    homeless: list[Partition] = []
    for name in sorted(partitions):
        owner = owners.get(name)
        if owner is not None and name.topic in members.get(owner, ()):
            shares[owner].append(name)
        else:
            homeless.append(name)
    for name in homeless:
        readers = [member for member, topics in members.items() if name.topic in topics]
        if readers:
            shares[min(readers, key=lambda member: len(shares[member]))].append(name)
    while _even_out(shares, members):
        pass
    return {name: member for member, share in shares.items() for name in share}


def _even_out(shares: dict[int, list[Partition]], members: Mapping[int, Collection[str]]) -> bool:
    """Move one partition from a share to one that is smaller by two or more; False where none is left to move."""
    for full in sorted(shares, key=lambda member: -len(shares[member])):
        for spare in sorted(shares, key=lambda member: len(shares[member])):
            if len(shares[full]) - len(shares[spare]) < 2:
                break
            movable = [name for name in shares[full] if name.topic in members[spare]]
            if movable:
                moving = _most_uneven(movable, shares[full], shares[spare])
                shares[full].remove(moving)
                shares[spare].append(moving)
                return True
    return False


def _most_uneven(movable: Sequence[Partition], full: Sequence[Partition], spare: Sequence[Partition]) -> Partition:
    """Choose the topic that is shared least evenly, so that everybody gets some of each; real groups share by topic."""
    lead = Counter(name.topic for name in full)
    lead.subtract(name.topic for name in spare)
    return max(reversed(movable), key=lambda name: lead[name.topic])


class Group:
    """One consumer group. It does not ask who commits: any member may commit any partition, as in Kafka."""

    def __init__(self, partitions: Callable[[], Iterable[Partition]]) -> None:
        """Begin without members. `partitions` are all there are in the broker."""
        self.committed: dict[Partition, Commit] = {}
        self.owners: dict[Partition, int] = {}
        self._partitions = partitions
        self._members: dict[int, Member] = {}
        self._targets: dict[Partition, int] = {}
        self._epochs: dict[int, int] = {}
        self._epoch = 0
        self._unstable: dict[object, frozenset[Partition]] = {}

    def join(self, member: int, topics: Collection[str], wake: Callable[[], None]) -> None:
        """Take a member in."""
        self._members[member] = Member(frozenset(topics), wake)
        self._bump(member)
        self.share()

    def leave(self, member: int) -> None:
        """Let a member go with all it had, whether it knows or not."""
        self._members.pop(member, None)
        self.owners = {name: owner for name, owner in self.owners.items() if owner != member}
        self.share()

    def share(self) -> None:
        """Share the partitions out anew, and wake everybody who may have to give or take."""
        topics = {number: member.topics for number, member in self._members.items()}
        self._targets = balance(self._partitions(), topics, {**self._targets, **self.owners})
        for member in self._members.values():
            member.wake()

    def to_give(self, member: int) -> list[Partition]:
        """What a member has and is to give up."""
        return sorted(
            name for name, owner in self.owners.items() if owner == member and self._targets.get(name) != member
        )

    def give(self, names: Collection[Partition]) -> None:
        """Free partitions that their owner has given up."""
        for name in names:
            owner = self.owners.pop(name, None)
            if owner is not None:
                self._bump(owner)
        for member in self._members.values():
            member.wake()

    def take(self, member: int) -> list[Partition]:
        """Make a member the owner of what is meant for it and free."""
        unstable = frozenset[Partition]().union(*self._unstable.values())
        free = sorted(
            name
            for name, target in self._targets.items()
            if target == member and name not in self.owners and name not in unstable
        )
        self.owners.update(dict.fromkeys(free, member))
        return free

    @property
    def members(self) -> list[str]:
        """The numbers of all members, those that the group has not missed yet included."""
        return [str(member) for member in self._members]

    # -------------------------------------------------------------- transactions

    def word(self, member: int) -> bytes | None:
        """Name a member in its present epoch, which ends when it joins again or gives a partition up (KIP-848)."""
        return b"%d.%d" % (member, self._epochs[member]) if member in self._members else None

    def promise(self, transaction: object, names: Iterable[Partition], word: bytes) -> bool:
        """Take offsets that count when the transaction is committed; False where `word` is no present member's.

        Who does not say that he is a member is believed, as on Kafka: clients older than KIP-447 do not say it.

        Until it ends nobody is given these partitions, for nobody knows where to begin (KIP-447: stable offsets).
        """
        if word and word not in map(self.word, self._members):
            return False
        self._unstable[transaction] = frozenset(names)
        return True

    def end(self, transaction: object, offsets: Mapping[Partition, Commit]) -> None:
        """End a transaction; `offsets` is empty where it was aborted."""
        self.committed.update(offsets)
        if self._unstable.pop(transaction, None) is not None:
            for member in self._members.values():
                member.wake()

    def _bump(self, member: int) -> None:
        self._epoch += 1
        self._epochs[member] = self._epoch

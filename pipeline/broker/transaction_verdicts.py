"""What an error of a transaction means, and what the group's offsets say of one whose end was not heard. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaError

from pipeline.core.errors import Halt
from pipeline.core.offset_map import Unreadable, read
from pipeline.core.record import Commit, Partition

_FORBIDDEN = {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}

# Of one record: it can be brought to another end. All others are of the transaction, or of the client.
_OF_A_RECORD = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
}


def unusable(error: KafkaError) -> bool:
    """Whether the refusal of a record is not its own fault: the transaction is over, its batch may be tried again."""
    return error.code() not in _OF_A_RECORD


def took_place(offsets: Mapping[Partition, Commit], found: Mapping[Partition, Commit]) -> bool:
    """Whether the transaction that committed `offsets` took place, if its group has `found`, with none open.

    All of a transaction took place or nothing, and commits only grow: so a partition that is behind tells that it did
    not. Else one that stands exactly there is enough. That alone would not do: a partition may be somebody else's by
    now, who has done the same work and stands there by himself. Where all have moved on, a second try is refused for
    its member.
    """
    if not all(_covers(found.get(name), commit) for name, commit in offsets.items()):
        return False
    return any(found.get(name) == commit for name, commit in offsets.items())


def _covers(found: Commit | None, commit: Commit) -> bool:
    """Whether all that `commit` says is settled is settled where the group stands."""
    if found is None or found.offset < commit.offset:
        return False
    return found == commit or found.offset > commit.offset or _settled(commit) <= _settled(found)


def _settled(commit: Commit) -> set[int]:
    try:
        return {offset for one in read(*commit).settled for offset in one}
    except Unreadable:
        return set()


class Forbidden(Exception):
    """Transactions may not be used under this id."""

    def __init__(self, halt: Halt) -> None:
        """Keep the verdict."""
        super().__init__(halt.reason)
        self.halt = halt

    @classmethod
    def check(cls, error: KafkaError, transactional_id: str) -> None:
        """Raise this where `error` says that only a person can help."""
        if error.code() in _FORBIDDEN:
            raise cls(
                Halt(
                    f"transactional id {transactional_id}: it may not be used ({error.str()}): grant the right to its"
                    " prefix and start again",
                    code="forbidden",
                )
            )

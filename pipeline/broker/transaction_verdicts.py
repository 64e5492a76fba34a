"""What an error of a transaction means, and what the group's offsets say of one whose end was not heard. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaError

from pipeline.core.errors import Halt
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

    One partition that stands exactly there is enough, as all of a transaction took place or nothing: each of its
    commits differed from the one before, and nobody but their owner commits them. Partitions that have moved on since
    say nothing; where all have, they are somebody else's now, and a second try is refused for its member.
    """
    return any(found.get(name) == commit for name, commit in offsets.items())


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

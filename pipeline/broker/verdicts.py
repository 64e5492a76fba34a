"""What an error of the Kafka client means to us. Pure: from a KafkaError to a meaning, an exception or a sentence.

The client's own codes begin with an underscore; the others are the protocol's (Kafka's `Errors`).
"""

from __future__ import annotations

from typing import Literal

from confluent_kafka import KafkaError

from pipeline.core.errors import Halt
from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Partition

Meaning = Literal["nothing", "away", "missing", "astray", "forbidden", "fatal", "odd"]
"""What an error event says: nothing to us, the broker is away, a topic is not there, a partition has no valid position,
we may not, the client is broken for good, or something to log."""

_MEANINGS: dict[int, Meaning] = {
    KafkaError._PARTITION_EOF: "nothing",
    # One connection or one request: the client tries again by itself, and says _ALL_BROKERS_DOWN where none is left.
    KafkaError._TRANSPORT: "nothing",
    KafkaError._TIMED_OUT: "nothing",
    KafkaError._ALL_BROKERS_DOWN: "away",
    KafkaError._RESOLVE: "away",
    # Passwords are rotated, and the client tries again; the log says why.
    KafkaError._AUTHENTICATION: "away",
    KafkaError._AUTO_OFFSET_RESET: "astray",
    KafkaError._UNKNOWN_TOPIC: "missing",
    KafkaError._UNKNOWN_PARTITION: "missing",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "missing",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "forbidden",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "forbidden",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "forbidden",
    KafkaError._FATAL: "fatal",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "fatal",
    KafkaError.INVALID_GROUP_ID: "fatal",
}

_IN_REBALANCE = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
}


def meaning(error: KafkaError) -> Meaning:
    """Say what an error event of a consumer means."""
    return "fatal" if error.fatal() else _MEANINGS.get(error.code(), "odd")


def in_rebalance(error: KafkaError) -> bool:
    """Whether a commit failed only because the group is being rearranged: its records will be repeated."""
    return error.code() in _IN_REBALANCE


def forbidden(error: KafkaError, group: str, topic: str | None) -> Halt:
    """The verdict on a member that may not read its topic or join its group."""
    what = f"topic {topic} may not be read" if topic else "the group may not be used"
    return Halt(f"group {group}: {what} ({error.str()}): grant the right and start again", code="forbidden")


def broken(error: KafkaError, group: str) -> Halt:
    """The verdict on a client that says it cannot go on."""
    return Halt(f"group {group}: the Kafka client cannot go on: {error.name()}, {error.str()}", code="client_broken")


def out_of_range(group: str, partition: Partition, offset: int, low: int, high: int) -> Halt:
    """The verdict on a position that the log does not have: records were deleted unread, or the topic is a new one."""
    gap = f"offsets {offset} to {low - 1} are gone" if offset < low else "the log ends before it"
    return Halt(
        f"group {group} stands at offset {offset} of {partition.topic}/{partition.number}, but that log has"
        f" [{low}, {high}): {gap}. Set the group's offset by hand to accept the loss",
        code="offset_out_of_range",
    )


def restart_at(position: int | None, committed: int | None, low: int, high: int) -> int | None:
    """Say where a partition without a valid position goes on, or None where only a person can say.

    `position` is where the client stood, `committed` what the group has, None where there is none. Without either the
    group is new to the partition and begins at its beginning. A position inside the log was an error that has passed.
    """
    wanted = position if position is not None else committed
    if wanted is None:
        return low
    return wanted if low <= wanted <= high else None


def undelivered(error: KafkaError, topic: str, partition: int | None) -> Exception:
    """Turn the refusal of a record into what `delivered` is handed."""
    name = topic if partition is None or partition < 0 else f"{topic}/{partition}"
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return RecordTooLarge(f"{name}: the record is over the topic's max.message.bytes")
    return NotDelivered(f"{name}: {error.name()}, {error.str()}")


class NotDelivered(Exception):
    """The cluster refuses a record for good: no such topic or partition, no right to write, a broken client."""

"""What the client's errors mean to us."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.verdicts import (
    Meaning,
    NotDelivered,
    broken,
    forbidden,
    in_rebalance,
    meaning,
    out_of_range,
    restart_at,
    undelivered,
)
from pipeline.core.ports import RecordTooLarge
from pipeline.core.record import Partition

OFFSETS = st.integers(min_value=0, max_value=20)


@pytest.mark.parametrize(
    "code,expected",
    [
        (KafkaError._PARTITION_EOF, "nothing"),
        (KafkaError._TRANSPORT, "nothing"),
        (KafkaError._ALL_BROKERS_DOWN, "away"),
        (KafkaError._AUTHENTICATION, "away"),
        (KafkaError._AUTO_OFFSET_RESET, "astray"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "missing"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "forbidden"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "forbidden"),
        (KafkaError.INCONSISTENT_GROUP_PROTOCOL, "fatal"),
        (KafkaError._MAX_POLL_EXCEEDED, "odd"),
    ],
)
def test_meaning(code: int, expected: Meaning) -> None:
    """Each kind of error event has one meaning; an unknown one is only logged."""
    assert meaning(KafkaError(code)) == expected


def test_fatal_errors() -> None:
    """What the client calls fatal is fatal, whatever its code."""
    assert meaning(KafkaError(KafkaError._TRANSPORT, "gone", fatal=True)) == "fatal"


def test_commits_in_a_rebalance() -> None:
    """Commits that fail because the group is being rearranged are told from those that fail for another reason."""
    assert in_rebalance(KafkaError(KafkaError.ILLEGAL_GENERATION))
    assert in_rebalance(KafkaError(KafkaError.STALE_MEMBER_EPOCH))
    assert not in_rebalance(KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE))


def test_sentences_of_halts() -> None:
    """The verdicts name the group, the place and the cure."""
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert forbidden(error, "g", "t").reason.startswith("group g: topic t may not be read")
    assert forbidden(error, "g", None).reason.startswith("group g: the group may not be used")
    assert "cannot go on" in broken(error, "g").reason
    behind = out_of_range("g", Partition("t", 1), 3, 7, 10).reason
    assert "offset 3 of t/1" in behind
    assert "[7, 10)" in behind
    assert "offsets 3 to 6 are gone" in behind
    assert "ends before it" in out_of_range("g", Partition("t", 1), 30, 7, 10).reason


@given(st.none() | OFFSETS, st.none() | OFFSETS, OFFSETS, OFFSETS)
def test_restart(position: int | None, committed: int | None, low: int, length: int) -> None:
    """A partition goes on inside its log or not at all, and at the beginning only where nothing is known of it."""
    start = restart_at(position, committed, low, low + length)
    known = position if position is not None else committed
    if known is None:
        assert start == low
    elif low <= known <= low + length:
        assert start == known
    else:
        assert start is None


def test_undelivered_records() -> None:
    """A record that is too large has an exception of its own; others name the topic, the partition and the reason."""
    large = undelivered(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), "t", 3)
    assert isinstance(large, RecordTooLarge)
    assert str(large).startswith("t/3: ")
    other = undelivered(KafkaError(KafkaError._UNKNOWN_TOPIC), "t", -1)
    assert isinstance(other, NotDelivered)
    assert str(other).startswith("t: _UNKNOWN_TOPIC")

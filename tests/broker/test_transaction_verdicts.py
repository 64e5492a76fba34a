"""What an error of a transaction means, and how one ended whose end was not heard."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from pipeline.broker.transaction_verdicts import Forbidden, took_place, unusable
from pipeline.core.offset_map import Progress, spell
from pipeline.core.record import Commit, Partition

A, B = Partition("t", 0), Partition("t", 1)
MAP, MORE = spell(5, Progress((range(7, 8),))), spell(5, Progress((range(7, 9),)))


@pytest.mark.parametrize(
    "found,there",
    [
        ({A: Commit(5, MAP), B: Commit(7)}, True),
        ({A: Commit(4), B: Commit(6)}, False),
        ({A: Commit(9), B: Commit(7)}, True),
        ({A: Commit(5), B: Commit(6)}, False),
        ({A: Commit(5, "another"), B: Commit(6)}, False),
        ({A: Commit(4), B: Commit(7)}, False),
        ({A: Commit(5, MORE), B: Commit(7)}, True),
        ({A: Commit(5), B: Commit(7)}, False),
        ({B: Commit(7)}, False),
        ({}, False),
    ],
)
def test_one_partition_that_stands_there_tells(found: dict[Partition, Commit], there: bool) -> None:
    """All of a transaction took place or nothing: none may be behind, whoever brought the other to where it stands."""
    assert took_place({A: Commit(5, MAP), B: Commit(7)}, found) == there


def test_a_record_may_be_refused_or_the_whole_transaction() -> None:
    """A record that is too large, or for no topic, can be brought to another end; a fenced producer cannot go on."""
    assert not unusable(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert not unusable(KafkaError(KafkaError._UNKNOWN_PARTITION))
    assert unusable(KafkaError(KafkaError._FENCED))
    assert unusable(KafkaError(KafkaError._PURGE_QUEUE))


def test_a_missing_right_is_for_a_person() -> None:
    """The sentence names the transactional id; any other error is not."""
    with pytest.raises(Forbidden) as caught:
        Forbidden.check(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "pipeline.work.9f")
    assert "transactional id pipeline.work.9f: it may not be used" in caught.value.halt.reason
    assert caught.value.halt.code == "forbidden"
    Forbidden.check(KafkaError(KafkaError._TIMED_OUT), "pipeline.work.9f")

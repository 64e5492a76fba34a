"""Tests of pipeline/ops/topic_check.py: topics of others. Our own are judged on a broker."""

from __future__ import annotations

import pytest

from pipeline.ops.topic_check import TopicState, foreign_problems, problems

DAY = 86_400_000


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"cleanup.policy": "delete", "retention.ms": "-1"},
        {"cleanup.policy": "delete", "retention.ms": str(DAY), "max.message.bytes": "16000000"},
        {"cleanup.policy": "compact", "retention.ms": "1000"},
        {"message.timestamp.type": "LogAppendTime"},
    ],
)
def test_a_foreign_topic_may_be_as_it_likes(config: dict[str, str]) -> None:
    """Any partition count, compacted or not, by any clock: nothing is asked of it that we do not need."""
    for partitions in (1, 50):
        assert foreign_problems({"db.users": TopicState(partitions, config)}, ["db.users"], 600, 16_777_216) == []


def test_a_foreign_topic_that_is_missing_is_its_connectors() -> None:
    """The sentence does not send anybody to `topics create`, which never makes it."""
    (told,) = foreign_problems({}, ["db.users"], 600, 1)
    assert told.startswith("db.users does not exist, and PIPELINE_TABLES names it: its connector makes it")
    assert "topics create" not in told


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_changes_that_are_deleted_before_they_are_read_are_told(policy: str) -> None:
    """Records may wait as long as the longest deferral, and are kept for twice that."""
    kept = TopicState(3, {"cleanup.policy": policy, "retention.ms": "60000"})
    (told,) = foreign_problems({"db.users": kept}, ["db.users"], 600, 16_777_216)
    assert "db.users keeps records for 60 s" in told
    assert "set retention.ms to at least 1200000" in told


def test_records_that_could_not_be_put_aside_are_told() -> None:
    """A dead letter larger than its topic takes would stop the stage."""
    wide = TopicState(3, {"max.message.bytes": "50000000"})
    (told,) = foreign_problems({"db.users": wide}, ["db.users"], 600, 16_777_216)
    assert "takes records up to 50000000 bytes" in told
    assert "set it to 16777216 or less" in told


@pytest.mark.parametrize("wanted,found,wrong", [(1, 1, 0), (1, 12, 1), (12, 12, 0), (12, 4, 0)])
def test_a_topic_that_is_read_by_its_first_partition_has_one(wanted: int, found: int, wrong: int) -> None:
    """What is read whole, partition by partition, may have any number; both must be compacted."""
    kept = {"cleanup.policy": "compact", "message.timestamp.type": "CreateTime"}
    told = problems({"p.kept": TopicState(found, kept)}, {"p.kept": TopicState(wanted, kept)}, [], 600)
    assert [text for text in told if "only the first is read" in text] == told
    assert len(told) == wrong
    (forgets,) = problems(
        {"p.kept": TopicState(1, {**kept, "cleanup.policy": "delete"})}, {"p.kept": TopicState(1, kept)}, [], 600
    )
    assert "set it to compact" in forgets

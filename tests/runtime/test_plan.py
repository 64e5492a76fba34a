"""A stage bound to names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.core.errors import ConfigurationError
from pipeline.core.event import Event
from pipeline.core.payloads import Failure, Request, Result
from pipeline.core.retry import TIERS
from pipeline.core.stage import Context, Stage, Topic, joined, sink, stage
from pipeline.runtime.plan import Source, plan

REQUESTS = Topic("requests", Request, open_topic=True)
RESULTS = Topic("results", Result)
FAILURES = Topic("failures", Failure)
LANED = Topic("contexts", Result, laned=True)


class Nothing:
    """A handler that is never called here."""

    async def __call__(self, event: Event[Any], ctx: Context, /) -> Sequence[Any]:
        return []


def test_every_name_has_the_prefix_and_the_stage() -> None:
    """Group, tiers and dead letters belong to the stage; failures to the pipeline."""
    bound = plan(stage("work", REQUESTS, RESULTS, Nothing), "acme")
    assert bound.group == "acme.work"
    assert bound.topics == ["acme.requests", "acme.work.retry.10s", "acme.work.retry.1m", "acme.work.retry.10m"]
    assert bound.dead_letters == "acme.work.dlq"
    assert bound.failures == "acme.failures"
    assert [bound.retry_topic(tier) for tier in TIERS] == list(bound.tiers)


def test_a_laned_source_is_three_topics_with_falling_weights() -> None:
    """Interactive work gets eight slots for each one of batch work when both have some."""
    assert list(plan(sink("work", LANED, Nothing), "t").sources.values()) == [
        Source("t.contexts.interactive", LANED, 8),
        Source("t.contexts.standard", LANED, 4),
        Source("t.contexts.batch", LANED, 1),
    ]


def test_a_record_is_declared_by_its_topic_or_by_where_it_first_stood() -> None:
    """On a tier the original topic decides; an unknown one counts as the first source."""
    bound = plan(joined("work", (RESULTS, FAILURES), RESULTS, Nothing), "t")
    assert bound.declared("t.failures", "") is FAILURES
    assert bound.declared("t.work.retry.10s", "t.failures") is FAILURES
    assert bound.declared("t.work.retry.10s", "forged") is RESULTS


def test_outputs_of_a_laned_topic_go_to_the_lane_of_the_job() -> None:
    """A job without a lane goes to `standard`; where the topic has no lanes, the lane does not matter."""
    laned = plan(stage("work", REQUESTS, LANED, Nothing), "t")
    assert laned.output_topic("batch") == "t.contexts.batch"
    assert laned.output_topic(None) == "t.contexts.standard"
    assert plan(stage("work", REQUESTS, RESULTS, Nothing), "t").output_topic("batch") == "t.results"


def test_all_that_a_stage_writes_is_named() -> None:
    """Each lane of its output, its tiers, its dead letters, and the failures; a sink has no outputs."""
    copies = ["t.work.retry.10s", "t.work.retry.1m", "t.work.retry.10m", "t.work.dlq", "t.failures"]
    laned = plan(stage("work", REQUESTS, LANED, Nothing), "t")
    assert laned.written == ["t.contexts.interactive", "t.contexts.standard", "t.contexts.batch", *copies]
    assert plan(stage("work", REQUESTS, RESULTS, Nothing), "t").written == ["t.results", *copies]
    assert plan(sink("work", RESULTS, Nothing), "t").written == copies


def test_a_sink_that_returns_a_payload_is_told_so() -> None:
    """The error names the stage and what is wrong with it."""
    with pytest.raises(LookupError, match="stage work has no output topic"):
        plan(sink("work", RESULTS, Nothing), "t").output_topic(None)


def test_foreign_topics_keep_their_names_and_carry_what_the_stage_reads() -> None:
    """They are sources with the weight of any; retries, dead letters and group stay the stage's own."""
    bound = plan(sink("work", REQUESTS, Nothing, repartition=True), "acme", ["db.users", "retry", "db.users"])
    assert list(bound.sources.values()) == [
        Source("acme.requests", REQUESTS, 4),
        Source("db.users", REQUESTS, 4),
        Source("retry", REQUESTS, 4),
    ]
    assert bound.foreign == {"db.users", "retry"}
    assert bound.topics == ["acme.requests", "db.users", "retry", *bound.tiers]
    alone = plan(sink("work", REQUESTS, Nothing, repartition=True), "acme")
    assert (alone.foreign, alone.written, alone.group) == (frozenset(), bound.written, bound.group)
    assert (bound.declared("retry", ""), bound.declared("acme.work.retry.10s", "db.users")) == (REQUESTS, REQUESTS)


@pytest.mark.parametrize(
    "declared",
    [
        sink("work", REQUESTS, Nothing),
        sink("work", RESULTS, Nothing, repartition=True),
        joined("work", (RESULTS, FAILURES), RESULTS, Nothing),
    ],
)
def test_a_stage_that_cannot_read_foreign_topics_says_so(declared: Stage) -> None:
    """It must trust no headers, choose partitions by key, and have one source: it tells what they carry."""
    with pytest.raises(ValueError, match="stage work cannot read foreign topics"):
        plan(declared, "t", ["db.users"])
    assert plan(declared, "t").foreign == frozenset()


def test_a_topic_of_our_own_is_not_foreign() -> None:
    """What a stage writes or another reads would come back to it."""
    with pytest.raises(ConfigurationError, match=r"topic t\.work\.dlq, but what begins with t\. is the pipeline's own"):
        plan(sink("work", REQUESTS, Nothing, repartition=True), "t", ["t.work.dlq"])

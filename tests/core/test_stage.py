"""Stages and topics are declared right, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Never

import pytest

from pipeline.core.catalog import Catalog
from pipeline.core.event import Event
from pipeline.core.index_ports import PassageSearch
from pipeline.core.payloads import Delivery, Document, Failure, Message, Prompt, Request, Result
from pipeline.core.ports import ChatModel
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Context, Stage, Topic, forked, joined, sink, stage

REQUESTS = Topic("requests", Request, open_topic=True)
PROMPTS = Topic("prompts", Prompt)
RESULTS, FAILURES = Topic("results", Result), Topic("failures", Failure)
DELIVERIES = Topic("deliveries", Delivery)
MESSAGES = Topic("messages", Message)
DOCUMENTS = Topic("documents", Document, open_topic=True)


@dataclass(frozen=True)
class Preprocess:
    """A handler that answers nothing."""

    async def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt]:
        """Answer nothing."""
        return ()


@dataclass(frozen=True)
class Notify:
    """A handler of two topics that answers nothing."""

    async def __call__(self, event: Event[Result | Failure], ctx: Context) -> Sequence[Delivery]:
        """Answer nothing."""
        return ()


@dataclass(frozen=True)
class Index:
    """A handler without outputs."""

    async def __call__(self, event: Event[Document], ctx: Context) -> Sequence[Never]:
        """Answer nothing."""
        return ()


def test_a_stage_reads_one_topic_and_writes_one() -> None:
    """The usual declaration, with the defaults of its policy."""
    declared = stage("preprocess", REQUESTS, PROMPTS, Preprocess)
    assert Stage(name="preprocess", sources=(REQUESTS,), output=PROMPTS, handler=Preprocess) == declared
    assert (64, 60.0, RetryPolicy((10.0, 60.0))) == (declared.concurrency, declared.timeout, declared.retry)
    assert (False, False, True) == (declared.enforce_deadline, declared.repartition, declared.open_topic)


def test_a_stage_may_read_two_topics() -> None:
    """Both are its sources, in order."""
    declared = joined("notify", (RESULTS, FAILURES), DELIVERIES, Notify, timeout=5, retry=RetryPolicy(()))
    assert ((RESULTS, FAILURES), DELIVERIES, False) == (declared.sources, declared.output, declared.open_topic)
    assert (5, 1) == (declared.timeout, declared.retry.tries)


def test_a_stage_may_write_two_topics() -> None:
    """The type of a payload picks between them; a costly stage, which looks for its answers on one, may not."""
    declared = forked("notify", (RESULTS, FAILURES), (DELIVERIES, MESSAGES), Notify)
    assert (DELIVERIES, MESSAGES) == declared.outputs
    with pytest.raises(ValueError, match="stage notify: a costly stage finds its answers on one output topic"):
        forked("notify", (RESULTS, FAILURES), (DELIVERIES, MESSAGES), Notify, costly=True)


def test_a_sink_writes_nothing() -> None:
    """It has a source and no output."""
    declared = sink("index", DOCUMENTS, Index, concurrency=1, repartition=True, enforce_deadline=True)
    assert ((DOCUMENTS,), None, 1) == (declared.sources, declared.output, declared.concurrency)
    assert (True, True) == (declared.repartition, declared.enforce_deadline)


@pytest.mark.parametrize("name", ["", "a.b", "a-b", "a b", "é", "²", "a\n", "x" * 101])
def test_a_stage_has_a_name_fit_for_topics(name: str) -> None:
    """ASCII letters and digits only: a dot would make its topics another stage's, a letter like é no topic at all."""
    with pytest.raises(ValueError, match="letters and digits only"):
        stage(name, REQUESTS, PROMPTS, Preprocess)


@pytest.mark.parametrize("noun", ["", "a.b", "preprocess.dlq", "é", "a b", "a\n", "x" * 101])
def test_a_topic_has_a_noun_fit_for_topics(noun: str) -> None:
    """No dot, which could make it a stage's retry or dead-letter topic, and nothing that Kafka does not take."""
    with pytest.raises(ValueError, match="a noun has 1 to 100 letters"):
        Topic(noun, Request)


@pytest.mark.parametrize(
    "policy", [{"concurrency": 0}, {"concurrency": -1}, {"timeout": 0}, {"timeout": math.nan}, {"timeout": math.inf}]
)
def test_an_impossible_policy_is_refused_where_it_is_declared(policy: dict[str, Any]) -> None:
    """At least one handler at a time, cut after a finite time; the sentence names the stage."""
    with pytest.raises(ValueError, match="stage preprocess: concurrency must be at least 1 and timeout above 0"):
        stage("preprocess", REQUESTS, PROMPTS, Preprocess, **policy)


@pytest.mark.parametrize("sources", [(), (REQUESTS, PROMPTS)])
def test_open_topics_and_our_own_do_not_mix(sources: tuple[Topic[Any], ...]) -> None:
    """Our own records would be treated as an outsider's, and lose their jobs; and a stage reads something."""
    with pytest.raises(ValueError, match="its sources must be all open topics or all our own"):
        Stage(name="mixed", sources=sources, output=None, handler=Preprocess)


@dataclass(frozen=True)
class Calls:
    """A handler that asks a model, and may search."""

    catalog: Catalog
    model: ChatModel
    passages: PassageSearch | None = None

    async def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt]:
        """Answer nothing."""
        return ()


def test_a_stage_from_kafka_to_kafka_may_be_exactly_once() -> None:
    """It needs a handler that touches nothing else, be it a class or a function that makes one."""
    for handler in (Preprocess, partial(Preprocess)):
        assert stage("preprocess", REQUESTS, PROMPTS, handler, delivery="exactly once").delivery == "exactly once"


def test_a_stage_that_calls_the_outside_cannot_be_exactly_once() -> None:
    """A call cannot be taken back with a transaction; the sentence names the ports and what to declare instead."""
    with pytest.raises(
        ValueError,
        match=r'stage work cannot be .* by ChatModel and PassageSearch, .* declare it delivery="at least once"',
    ):
        stage("work", REQUESTS, PROMPTS, Calls, delivery="exactly once")
    with pytest.raises(ValueError, match="stage index cannot be exactly once: it has no output topic"):
        sink("index", DOCUMENTS, Index, delivery="exactly once")


def test_there_are_no_other_deliveries() -> None:
    """A mistaken word is refused, with those that there are."""
    mistaken: Any = "exactly-once"
    with pytest.raises(ValueError, match="'exactly-once' is none of at least once, at most once, exactly once"):
        stage("work", REQUESTS, PROMPTS, Preprocess, delivery=mistaken)


def test_a_context_knows_its_try() -> None:
    """What a handler may know: the event's id, attempt, deadline, the time, and that nobody has cancelled it."""
    ctx = Context("id", 1, None, lambda: 5.0)
    assert ("id", 1, None, 5.0, False) == (ctx.event_id, ctx.attempt, ctx.deadline, ctx.now(), ctx.cancelled())


@pytest.mark.parametrize(
    "policy", [{"output": None}, {"repartition": True}, {"delivery": "at most once"}, {"delivery": "exactly once"}]
)
def test_a_costly_stage_must_find_its_answers(policy: dict[str, Any]) -> None:
    """Without an output, on other partition numbers, or in transactions that may be aborted, it could not."""
    known: dict[str, Any] = {"output": RESULTS, **policy}
    with pytest.raises(ValueError, match=r"stage work"):
        Stage(name="work", sources=(PROMPTS,), handler=Any, costly=True, **known)  # type: ignore[arg-type]  # never made

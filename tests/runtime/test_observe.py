"""What is seen of a stage: metrics where there are some, log lines always."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample
from structlog.contextvars import merge_contextvars
from structlog.exceptions import DropEvent
from structlog.testing import capture_logs
from structlog.typing import EventDict

from pipeline.core.errors import Fail, Halt, Reject, Retry
from pipeline.core.event import receive
from pipeline.core.headers import CE_ID, CE_SUBJECT
from pipeline.core.record import Position, Record
from pipeline.core.retry import RetryPolicy, decide
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import StageMetrics
from tests.runtime.world import OPEN, Note, Script, World

PLAN = plan(World.stage(), "t")
RECORD = Record("t.in", 2, 7, b"k", b"", ((CE_ID, b"e"), (CE_SUBJECT, b"job-1")), 1_000)
EVENT = receive(RECORD, Note(text="a"), open_topic=False, copy=False, now=1.0)


def conclude(error: Exception) -> dict[str, object]:
    """Let an observer report how a try ended; returns its log line."""
    with capture_logs() as captured:
        Observer().concluded(PLAN, EVENT, decide(error, EVENT.tries, RetryPolicy(), 1.0, None), error)
    (line,) = captured
    return dict(line)


def test_without_metrics_only_the_log_is_written() -> None:
    """Every report works without a registry; counts go nowhere."""
    observer = Observer()
    with capture_logs() as captured:
        with observer.trying(PLAN, EVENT):
            pass
        observer.taken(PLAN, 3)
        observer.settled(PLAN, "output")
        observer.gauges(PLAN, open=1)
        observer.committed(PLAN)
        observer.changed(PLAN, "running")
    assert [line["action"] for line in captured] == ["work.running"]


@pytest.mark.parametrize(
    "error, action, level",
    [
        (Fail("no"), "work.fail", "info"),
        (Reject("no"), "work.dead_letter", "warning"),
        (Retry("no"), "work.retry", "warning"),
        (Halt("no"), "work.halt", "warning"),
        (ValueError("no"), "work.retry", "warning"),
    ],
)
def test_an_end_is_told_with_a_stable_action(error: Exception, action: str, level: str) -> None:
    """A request's own failure is news, ours are warnings; each names job, event, trace, source and reason."""
    line = conclude(error)
    assert (line["action"], line["log_level"]) == (action, level)
    assert (line["job"], line["event_id"], line["stage"]) == ("job-1", "e", "work")
    assert (line["source"], line["trace"], line["attempts"]) == ("t.in/2/7", EVENT.trace.trace_id, 0)
    assert line["reason"] == f"{type(error).__name__}: no"


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """Every line written, with what was lent to it."""
    kept: list[dict[str, object]] = []

    def keep(_logger: object, _method: str, line: EventDict) -> EventDict:
        kept.append(dict(line))
        raise DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[merge_contextvars, logs.merge_lent, keep])
    yield kept
    structlog.configure(**before)


def test_a_try_lends_its_context_to_every_line_written_in_it(lines: list[dict[str, object]]) -> None:
    """Job, event, trace and stage stand in each line while the handler runs, and not a moment longer."""
    observer = Observer()
    with observer.trying(PLAN, EVENT):
        structlog.get_logger().info("during", stage="mine")
    structlog.get_logger().info("after")
    lent = {"job": "job-1", "event_id": "e", "trace": EVENT.trace.trace_id}
    assert lines == [{"event": "during", "stage": "mine", **lent}, {"event": "after"}]


def test_a_try_that_raises_takes_its_context_back(lines: list[dict[str, object]]) -> None:
    """However a try ends, the next line is not its own."""
    with pytest.raises(ZeroDivisionError), Observer().trying(PLAN, EVENT):
        raise ZeroDivisionError
    structlog.get_logger().info("after")
    assert lines == [{"event": "after"}]


@pytest.mark.parametrize("level, written", [(logging.DEBUG, ["work.done"]), (logging.INFO, [])])
def test_a_success_is_told_where_somebody_debugs(
    lines: list[dict[str, object]], level: int, written: list[str]
) -> None:
    """A line for each record is written at level debug only, and then it names its job."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    with Observer().trying(PLAN, EVENT):
        pass
    assert [line["action"] for line in lines if line["job"] == "job-1"] == written


@pytest.mark.parametrize("level, written", [(logging.DEBUG, ["work: ignored: a tombstone"]), (logging.INFO, [])])
def test_why_nothing_is_asked_for_is_told_where_somebody_debugs(
    lines: list[dict[str, object]], level: int, written: list[str]
) -> None:
    """It is counted by topic in any case, and no try."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    registry = CollectorRegistry()
    observer = Observer(StageMetrics(registry))
    bound = plan(World.stage(OPEN, repartition=True), "t", ["db.users"])
    for topic in ("db.users", "a.former.one", "another"):
        observer.ignored(bound, topic, "a tombstone")
    Observer().ignored(bound, "db.users", "a tombstone")
    assert [line["event"] for line in lines] == 4 * written
    counted = {sample.labels["topic"]: sample.value for sample in _samples(registry, "pipeline_records_ignored_total")}
    assert counted == {"db.users": 1, "other": 2}
    assert not _samples(registry, "pipeline_tries_total")


def _samples(registry: CollectorRegistry, name: str) -> list[Sample]:
    return [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]


@pytest.mark.virtual
async def test_tries_side_by_side_do_not_mix_their_contexts(lines: list[dict[str, object]]) -> None:
    """Two handlers at once each write about their own job."""
    world = await World.make()

    class Talking(Script):
        async def __call__(self, event, ctx, /):  # type: ignore[no-untyped-def]  # as its parent
            await asyncio.sleep(1)
            structlog.get_logger().info(event.payload.text)
            return []

    run = await world.start(Talking())
    for name in ("a", "b"):
        world.put(name, key=name.encode(), headers={CE_SUBJECT: f"job-{name}"})
    await world.until(lambda: world.at() == 2)
    await run.stop()
    assert {line["event"]: line["job"] for line in lines if "job" in line} == {"a": "job-a", "b": "job-b"}


def test_a_gauge_of_running_handlers_is_read_while_they_run() -> None:
    """It counts all of the stage, also those of another observer of the same metrics."""
    registry = CollectorRegistry()
    metrics = StageMetrics(registry)
    with Observer(metrics).trying(PLAN, EVENT), Observer(metrics).trying(PLAN, EVENT):
        assert registry.get_sample_value("pipeline_handlers_running", {"stage": "work"}) == 2
    assert registry.get_sample_value("pipeline_handlers_running", {"stage": "work"}) == 0


def test_outcomes_are_counted_by_a_bounded_set_of_names() -> None:
    """Whatever a handler raises, the label is one of seven."""
    registry = CollectorRegistry()
    observer = Observer(StageMetrics(registry))
    for error in (Fail("no"), Retry("no"), ZeroDivisionError(), KeyError("x")):
        observer.concluded(PLAN, EVENT, decide(error, EVENT.tries, RetryPolicy(), 1.0, None), error)
    found = {
        outcome: registry.get_sample_value("pipeline_tries_total", {"stage": "work", "outcome": outcome})
        for outcome in ("fail", "retry", "unexpected")
    }
    assert found == {"fail": 1, "retry": 1, "unexpected": 2}


def test_a_try_that_raises_is_timed_and_not_counted_as_ok() -> None:
    """The time of a try is observed however it ends."""
    registry = CollectorRegistry()
    observer = Observer(StageMetrics(registry))
    with pytest.raises(ZeroDivisionError), observer.trying(PLAN, EVENT):
        raise ZeroDivisionError
    assert registry.get_sample_value("pipeline_handling_seconds_count", {"stage": "work"}) == 1
    assert registry.get_sample_value("pipeline_handlers_running", {"stage": "work"}) == 0
    assert registry.get_sample_value("pipeline_tries_total", {"stage": "work", "outcome": "ok"}) is None


def test_what_a_drain_abandons_is_named_up_to_ten() -> None:
    """The first positions are in the line, and how many there are in all."""
    with capture_logs() as captured:
        Observer().abandoned(PLAN, [Position("t.in", 0, offset) for offset in range(25)])
    assert "25 records" in str(captured[0]["event"])
    assert captured[0]["records"] == [f"t.in/0/{offset}" for offset in range(10)]

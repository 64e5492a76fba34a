"""What is seen of a stage: metrics where there are some, log lines always."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from pipeline.core.errors import Fail, Halt, Reject, Retry
from pipeline.core.event import receive
from pipeline.core.headers import CE_ID, CE_SUBJECT
from pipeline.core.record import Position, Record
from pipeline.core.retry import RetryPolicy, decide
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.telemetry.metrics import StageMetrics
from tests.runtime.world import Note, Script, World

PLAN = plan(World.stage(), "t")
RECORD = Record("t.in", 2, 7, b"k", b"", ((CE_ID, b"e"), (CE_SUBJECT, b"job-1")), 1_000)
EVENT = receive(RECORD, Note(text="a"), open_topic=False, copy=False, now=1.0)


def conclude(error: Exception) -> dict[str, object]:
    """Let an observer report how a try ended; returns its log line."""
    with capture_logs() as logs:
        Observer().concluded(PLAN, EVENT, decide(error, EVENT.tries, RetryPolicy(), 1.0, None), error)
    (line,) = logs
    return dict(line)


def test_without_metrics_only_the_log_is_written() -> None:
    """Every report works without a registry; counts go nowhere."""
    observer = Observer()
    with capture_logs() as logs:
        with observer.trying(PLAN, EVENT):
            pass
        observer.taken(PLAN, 3)
        observer.settled(PLAN, "output")
        observer.gauges(PLAN, open=1)
        observer.committed(PLAN)
        observer.changed(PLAN, "running")
    assert [line["action"] for line in logs] == ["work.running"]


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


def test_a_try_lends_its_context_to_every_line_written_in_it() -> None:
    """Job, event, trace and stage are bound while the handler runs, and not a moment longer."""
    observer = Observer()
    with observer.trying(PLAN, EVENT):
        assert get_contextvars() == {
            "job": "job-1",
            "event_id": "e",
            "trace": EVENT.trace.trace_id,
            "stage": "work",
        }
    assert get_contextvars() == {}


@pytest.mark.virtual
async def test_tries_side_by_side_do_not_mix_their_contexts() -> None:
    """Two handlers at once each see their own job."""
    seen: dict[str, object] = {}
    world = await World.make()

    class Looking(Script):
        async def __call__(self, event, ctx, /):  # type: ignore[no-untyped-def]  # as its parent
            await asyncio.sleep(1)
            seen[event.payload.text] = get_contextvars()["job"]
            return []

    run = await world.start(Looking())
    for name in ("a", "b"):
        world.put(name, key=name.encode(), headers={CE_SUBJECT: f"job-{name}"})
    await world.until(lambda: world.at() == 2)
    await run.stop()
    assert seen == {"a": "job-a", "b": "job-b"}


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
    with capture_logs() as logs:
        Observer().abandoned(PLAN, [Position("t.in", 0, offset) for offset in range(25)])
    assert "25 records" in str(logs[0]["event"])
    assert logs[0]["records"] == [f"t.in/0/{offset}" for offset in range(10)]

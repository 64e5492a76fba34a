"""What is seen of a stage at work: metrics and log lines. Components report here and measure nothing themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.record import Position
from pipeline.core.retry import DeadLetter, Decision, FailJob, StopStage, describe
from pipeline.runtime.plan import Plan
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import StageMetrics


class Observer:
    """Watches the stages of one process."""

    def __init__(self, metrics: StageMetrics | None = None) -> None:
        """Report to `metrics`; without, only the log is written."""
        self._metrics = metrics
        self._log = logs.get()

    @contextmanager
    def trying(self, plan: Plan, event: Event[Payload]) -> Iterator[None]:
        """Watch one try: its time, and the context of every line logged in it."""
        stage = plan.stage.name
        context = {"job": event.job.id, "event_id": event.id, "trace": event.trace.trace_id, "stage": stage}
        started = time.perf_counter()
        metrics = self._metrics
        if metrics:
            metrics.running.labels(stage).inc()
        try:
            with logs.during(context):
                yield
                self._log.debug(f"{stage}: done", action=f"{stage}.done", attempts=event.tries.attempts)
            self._outcome(stage, "ok")
        finally:
            if metrics:
                metrics.running.labels(stage).dec()
                metrics.handling.labels(stage).observe(time.perf_counter() - started)

    def concluded(self, plan: Plan, event: Event[Payload], decision: Decision, error: Exception) -> None:
        """Report a try that did not succeed, and what was decided."""
        stage = plan.stage.name
        self._outcome(stage, type(error).__name__.lower())
        known: dict[str, Any] = {
            "action": f"{stage}.{_verb(decision)}",
            "stage": stage,
            "job": event.job.id,
            "event_id": event.id,
            "trace": event.trace.trace_id,
            "source": str(event.origin.position),
            "attempts": event.tries.attempts,
            "reason": describe(error),
        }
        write = self._log.info if isinstance(decision, FailJob) else self._log.warning
        write(f"{stage}: {_verb(decision)}", **known)

    def taken(self, plan: Plan, count: int) -> None:
        """Count records taken."""
        if self._metrics:
            self._metrics.taken.labels(plan.stage.name).inc(count)

    def settled(self, plan: Plan, end: str) -> None:
        """Count a record that came to its end."""
        if self._metrics:
            self._metrics.settled.labels(plan.stage.name, end or "nothing").inc()

    def gauges(self, plan: Plan, **values: int) -> None:
        """Set the gauges named by `values`."""
        if self._metrics:
            for name, value in values.items():
                getattr(self._metrics, name).labels(plan.stage.name).set(value)

    def committed(self, plan: Plan) -> None:
        """Count a commit."""
        if self._metrics:
            self._metrics.commits.labels(plan.stage.name).inc()

    def abandoned(self, plan: Plan, positions: Sequence[Position]) -> None:
        """Report what the drain deadline cut: it stays uncommitted and will be taken again."""
        self._log.warning(
            f"{plan.stage.name}: drain deadline passed, {len(positions)} records are left to the next worker",
            action=f"{plan.stage.name}.drain_abandoned",
            stage=plan.stage.name,
            records=[str(position) for position in positions[:10]],
        )

    def untold(self, plan: Plan, position: Position, error: Exception) -> None:
        """Report a dead letter whose failure event was too large to write: a person must tell the job's owner."""
        self._log.warning(
            f"{plan.stage.name}: the failure event of a dead letter was refused, its owner hears nothing of it",
            action=f"{plan.stage.name}.untold",
            stage=plan.stage.name,
            source=str(position),
            reason=describe(error),
        )

    def changed(self, plan: Plan, state: str, reason: str = "") -> None:
        """Report a change of the stage's state."""
        stage = plan.stage.name
        if self._metrics:
            self._metrics.halted.labels(stage).set(int(state == "halted"))
        write = self._log.error if state == "halted" else self._log.info
        write(f"{stage}: {state}", action=f"{stage}.{state}", stage=stage, **({"reason": reason} if reason else {}))

    def _outcome(self, stage: str, outcome: str) -> None:
        if self._metrics:
            known = outcome if outcome in _OUTCOMES else "unexpected"
            self._metrics.tries.labels(stage, known).inc()


_OUTCOMES = frozenset({"ok", "fail", "reject", "retry", "defer", "halt", "trytimeout"})


def _verb(decision: Decision) -> str:
    match decision:
        case StopStage():
            return "halt"
        case FailJob():
            return "fail"
        case DeadLetter():
            return "dead_letter"
        case _:
            return "retry"

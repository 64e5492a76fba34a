"""What is seen of a stage at work: metrics and log lines. Components report here and measure nothing themselves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from structlog.typing import FilteringBoundLogger

from pipeline.core.event import Event
from pipeline.core.payloads import Payload
from pipeline.core.record import Position
from pipeline.core.retry import DeadLetter, Decision, FailJob, StopStage, describe
from pipeline.runtime.heads import Late
from pipeline.runtime.plan import Plan
from pipeline.telemetry import logs
from pipeline.telemetry.metrics import OneStage, StageMetrics


class Observer:
    """Watches the stages of one process."""

    def __init__(self, metrics: StageMetrics | None = None) -> None:
        """Report to `metrics`; without, only the log is written, at the level configured before."""
        self._metrics = metrics
        self._log = logs.get()
        self._debugging = logs.debugging()

    def trying(self, plan: Plan, event: Event[Payload]) -> AbstractContextManager[None]:
        """Watch one try: its time, and the context of every line logged in it."""
        stage = plan.stage.name
        metrics = self._metrics.of(stage) if self._metrics else None
        return _Try(stage, event, metrics, self._log if self._debugging else None)

    def concluded(self, plan: Plan, event: Event[Payload], decision: Decision, error: Exception) -> None:
        """Report a try that did not succeed, and what was decided."""
        stage = plan.stage.name
        if self._metrics:
            outcome = type(error).__name__.lower()
            self._metrics.of(stage).tried(outcome if outcome in _OUTCOMES else "unexpected")
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
        if self._metrics and count:
            self._metrics.of(plan.stage.name).taken.inc(count)

    def settled(self, plan: Plan, end: str) -> None:
        """Count a record that came to its end."""
        if self._metrics:
            self._metrics.of(plan.stage.name).settled(end or "nothing")

    def ignored(self, plan: Plan, topic: str, why: str) -> None:
        """Count a record of a foreign topic that asks for nothing, and say why at debug level."""
        stage = plan.stage.name
        if self._metrics:
            self._metrics.ignored.labels(stage, topic if topic in plan.foreign else "other").inc()
        if self._debugging:
            self._log.debug(f"{stage}: ignored: {why}", action=f"{stage}.ignored", stage=stage, topic=topic)

    def late(self, plan: Plan, late: Late, doing: str) -> None:
        """Report the record that holds a partition's frontier, and what it does."""
        self._log.warning(
            f"{plan.stage.name}: one record has held its partition for {late.age:.0f} s: {doing}",
            action=f"{plan.stage.name}.head_of_line",
            stage=plan.stage.name,
            source=str(late.position),
            seconds=round(late.age),
            behind=late.behind,
        )

    def gauges(self, plan: Plan, **values: float) -> None:
        """Set the gauges named by `values`."""
        if self._metrics:
            gauges = self._metrics.of(plan.stage.name).gauges
            for name, value in values.items():
                gauges[name].set(value)

    def committed(self, plan: Plan) -> None:
        """Count a commit."""
        if self._metrics:
            self._metrics.of(plan.stage.name).commits.inc()

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
            self._metrics.of(stage).gauges["halted"].set(int(state == "halted"))
        write = self._log.error if state == "halted" else self._log.info
        write(f"{stage}: {state}", action=f"{stage}.{state}", stage=stage, **({"reason": reason} if reason else {}))


class _Try(AbstractContextManager[None]):
    """One try while it runs: it is timed, counted, and lends its names to the lines written meanwhile.

    `debug` is the log where somebody wants a line for each success.
    """

    __slots__ = ("_debug", "_event", "_lent", "_metrics", "_stage", "_started")

    def __init__(
        self, stage: str, event: Event[Payload], metrics: OneStage | None, debug: FilteringBoundLogger | None
    ) -> None:
        self._stage = stage
        self._event = event
        self._metrics = metrics
        self._debug = debug

    def said(self) -> Mapping[str, str]:
        """Name the job, the event, its trace and the stage."""
        event = self._event
        return {"job": event.job.id, "event_id": event.id, "trace": event.trace.trace_id, "stage": self._stage}

    def __enter__(self) -> None:
        """Begin."""
        if self._metrics:
            self._metrics.running += 1
        self._lent = logs.lend(self)
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, however the try did."""
        seconds = time.perf_counter() - self._started
        metrics, done = self._metrics, kind is None
        if metrics:
            metrics.running -= 1
            metrics.handling.observe(seconds)
            if done:
                metrics.tried("ok")
        if done and self._debug:
            tries, stage = self._event.tries, self._stage
            self._debug.debug(f"{stage}: done", action=f"{stage}.done", attempts=tries.attempts)
        logs.take_back(self._lent)


_OUTCOMES = frozenset({"fail", "reject", "retry", "defer", "halt", "trytimeout"})


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

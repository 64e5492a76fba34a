"""Every metric of the project, declared once, typed and commented. Base units; labels are bounded by the topology."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class StageMetrics:
    """What the runtime observes about stages. One instance per registry; `stage` is a name from the topology."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register all metrics with `registry`."""
        self.taken = Counter(
            "pipeline_records_taken", "Records a stage has taken from its topics", ["stage"], registry=registry
        )
        # The ends: "output", "failure", "retry", "moved", "dead_letter", "nothing" (handled, with no outputs),
        # "answered", "ignored" (a record of a foreign topic that asks for nothing: not handled).
        self.settled = Counter(
            "pipeline_records_settled", "Records settled, by the end they came to", ["stage", "end"], registry=registry
        )
        # By topic: the foreign ones are named in the mapping of tables, so there are no more than a person wrote down.
        self.ignored = Counter(
            "pipeline_records_ignored",
            "Records of foreign topics that ask for nothing (tombstones, heartbeats)",
            ["stage", "topic"],
            registry=registry,
        )
        # The outcomes: "ok", or which of the five exceptions; anything else is "unexpected".
        self.tries = Counter(
            "pipeline_tries", "Tries of a handler, by outcome", ["stage", "outcome"], registry=registry
        )
        self.handling = Histogram(
            "pipeline_handling_seconds", "Time in the handler, per try", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.running = Gauge("pipeline_handlers_running", "Handlers at work now", ["stage"], registry=registry)
        self.open = Gauge("pipeline_window_records", "Records taken and not settled", ["stage"], registry=registry)
        self.waiting = Gauge(
            "pipeline_waiting_records", "Deferred records that wait in place", ["stage"], registry=registry
        )
        self.partitions = Gauge(
            "pipeline_partitions_assigned", "Partitions this process owns", ["stage"], registry=registry
        )
        self.paused = Gauge("pipeline_partitions_paused", "Partitions not fetched now", ["stage"], registry=registry)
        self.head = Gauge(
            "pipeline_head_of_line_seconds",
            "How long the oldest unsettled record has held its partition's frontier",
            ["stage"],
            registry=registry,
        )
        self.held = Gauge(
            "pipeline_held_records", "Records in memory that a person has paused", ["stage"], registry=registry
        )
        self.stage_paused = Gauge(
            "pipeline_stage_paused", "1 while a person has paused the whole stage", ["stage"], registry=registry
        )
        self.commits = Counter("pipeline_commits", "Offset commits asked for", ["stage"], registry=registry)
        self.halted = Gauge("pipeline_stage_halted", "1 when a stage has stopped itself", ["stage"], registry=registry)
        self._stages: dict[str, OneStage] = {}

    def of(self, stage: str) -> OneStage:
        """The metrics of one stage."""
        known = self._stages.get(stage)
        if known is None:
            known = self._stages[stage] = OneStage(self, stage)
        return known


class OneStage:
    """The metrics of one stage, each looked up by its labels once: that takes longer than to count.

    `running` is a plain number, read when somebody asks for the gauge.
    """

    def __init__(self, metrics: StageMetrics, stage: str) -> None:
        """Use `metrics`. Labels with more than a stage appear with their first count."""
        self.running = 0
        self.taken = metrics.taken.labels(stage)
        self.handling = metrics.handling.labels(stage)
        self.commits = metrics.commits.labels(stage)
        gauges = ("open", "waiting", "partitions", "paused", "head", "halted", "held", "stage_paused")
        self.gauges = {name: getattr(metrics, name).labels(stage) for name in gauges}
        self._stage = stage
        self._tries, self._settled = metrics.tries, metrics.settled
        self._outcomes: dict[str, Counter] = {}
        self._ends: dict[str, Counter] = {}
        metrics.running.labels(stage).set_function(lambda: self.running)

    def tried(self, outcome: str) -> None:
        """Count a try."""
        known = self._outcomes.get(outcome)
        if known is None:
            known = self._outcomes[outcome] = self._tries.labels(self._stage, outcome)
        known.inc()

    def settled(self, end: str) -> None:
        """Count a record that came to its end."""
        known = self._ends.get(end)
        if known is None:
            known = self._ends[end] = self._settled.labels(self._stage, end)
        known.inc()


class ModelMetrics:
    """What calls of models cost. `model` is a name from the catalog."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register all metrics with `registry`."""
        self.calls = Counter(
            "pipeline_model_calls", "Calls of a model, by outcome", ["model", "outcome"], registry=registry
        )
        self.tokens = Counter("pipeline_model_tokens", "Tokens used", ["model", "direction"], registry=registry)
        self.latency = Histogram(
            "pipeline_model_latency_seconds", "Time of one call", ["model"], buckets=_SECONDS, registry=registry
        )
        self.in_flight = Gauge("pipeline_model_calls_in_flight", "Calls in flight", ["model"], registry=registry)

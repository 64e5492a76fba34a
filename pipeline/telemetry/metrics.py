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
        # The ends: "output", "failure", "retry", "moved", "dead_letter", "nothing".
        self.settled = Counter(
            "pipeline_records_settled", "Records settled, by the end they came to", ["stage", "end"], registry=registry
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
        self.commits = Counter("pipeline_commits", "Offset commits asked for", ["stage"], registry=registry)
        self.halted = Gauge("pipeline_stage_halted", "1 when a stage has stopped itself", ["stage"], registry=registry)


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

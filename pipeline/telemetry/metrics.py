"""Every metric of the project, declared once, typed and commented. Base units; labels are bounded by the topology."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_AGES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)
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
        # By topic, of those that the mapping of tables names; copies of what it named before are `other`.
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


class IndexMetrics:
    """How the vector index follows its sources. `source` is a table's or a feed's name, of `MOST_SOURCES` at most."""

    MOST_SOURCES = 100
    """Whoever writes documents names their source: those beyond so many are counted together, as `other`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register all metrics with `registry`."""
        # Of each state that changed the index, so a replay adds nothing: its p50 and p99 are how fresh answers are.
        self.freshness = Histogram(
            "pipeline_index_freshness_seconds",
            "From a state's commit at its source until it was searchable",
            ["source"],
            buckets=_AGES,
            registry=registry,
        )
        # A time and not an age, which would stand still with the stage: `time() - this` is the age. It also grows while
        # nobody changes the source, so an alarm asks for the lag of the group beside it.
        self.newest = Gauge(
            "pipeline_index_newest_commit_timestamp_seconds",
            "When the newest state that is searchable was committed at its source, since the epoch",
            ["source"],
            registry=registry,
        )
        # The changes: "written" (embedded anew), "kept" (there already, neither embedded nor written), "removed".
        self.chunks = Counter(
            "pipeline_index_chunks",
            "Chunks of documents, by what became of them",
            ["source", "change"],
            registry=registry,
        )
        self.tokens = Counter(
            "pipeline_index_embedding_tokens", "Tokens that dense embeddings took", ["source"], registry=registry
        )
        # Repeats and what came out of order; many of them at once are a replay.
        self.stale = Counter(
            "pipeline_index_stale_changes",
            "Changes that changed nothing, since the index held a newer version",
            ["source"],
            registry=registry,
        )
        self._sources: dict[str, OneSource] = {}

    def of(self, source: str) -> OneSource:
        """The metrics of one source."""
        known = self._sources.get(source)
        if known is None:
            label = source if len(self._sources) < self.MOST_SOURCES else "other"
            known = self._sources.get(label) or OneSource(self, label)
            self._sources.setdefault(label, known)
        return known


class AuditMetrics:
    """How the index and its sources differed at the last audit. `source` is a table's or a feed's name."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register all metrics with `registry`."""
        # The kinds: "missing", "stale", "orphaned", "refused", "torn". What the audit has mended is not counted.
        self.differences = Gauge(
            "pipeline_index_audit_differences",
            "Documents that differed from their rows at the last audit",
            ["source", "kind"],
            registry=registry,
        )
        self.at = Gauge(
            "pipeline_index_audit_timestamp_seconds", "When the last audit ended, since the epoch", registry=registry
        )


class EndpointMetrics:
    """What becomes of webhook endpoints. `endpoint` is a name from the catalog."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register all metrics with `registry`."""
        self.disabled = Gauge(
            "pipeline_endpoint_disabled", "1 while a webhook endpoint is disabled", ["endpoint"], registry=registry
        )


class OneSource:
    """The metrics of one source, each looked up by its labels once."""

    def __init__(self, metrics: IndexMetrics, source: str) -> None:
        """Use `metrics`."""
        self.freshness = metrics.freshness.labels(source)
        self.tokens = metrics.tokens.labels(source)
        self.stale = metrics.stale.labels(source)
        self.written, self.kept, self.removed = (
            metrics.chunks.labels(source, change) for change in ("written", "kept", "removed")
        )
        self._newest = metrics.newest.labels(source)
        self._committed = 0.0

    def searchable(self, committed: float, now: float) -> None:
        """Note that a state committed at a time is searchable now, both in seconds since the epoch."""
        # The clocks of two machines may differ by more than a state takes.
        self.freshness.observe(max(0.0, now - committed))
        if committed > self._committed:
            self._committed = committed
            self._newest.set(committed)

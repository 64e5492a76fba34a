"""THE REGISTRY: every topic and every stage, on one screen. A stage on the wrong topic is a type error on its line."""

from __future__ import annotations

from pipeline.broker.admin import TopicSpec
from pipeline.core import names
from pipeline.core import payloads as p
from pipeline.core.endpoints import SCHEDULE
from pipeline.core.limits import MAX_COPY_BYTES, MAX_FOREIGN_COPY_BYTES, MAX_MESSAGE_BYTES
from pipeline.core.retry import RetryPolicy, Tier
from pipeline.core.stage import Stage, Topic, forked, sink, stage
from pipeline.stages.deliver import Deliver
from pipeline.stages.index import Index
from pipeline.stages.infer import Infer
from pipeline.stages.notify import Notify
from pipeline.stages.postprocess import Postprocess
from pipeline.stages.preprocess import Preprocess
from pipeline.stages.retrieve import Retrieve

REQUESTS = Topic("requests", p.Request, open_topic=True)
PROMPTS = Topic("prompts", p.Prompt)
CONTEXTS = Topic("contexts", p.RetrievedContext, laned=True)
COMPLETIONS = Topic("completions", p.Completion)
RESULTS = Topic("results", p.Result)
FAILURES = Topic("failures", p.Failure)
DELIVERIES = Topic("deliveries", p.Delivery)
DOCUMENTS = Topic("documents", p.Document, open_topic=True)
MESSAGES = Topic("messages", p.Message)
CONTROL = Topic("control", p.Control)
LETTERS = Topic("letters", p.Letter)
AUDIT = Topic("audit", p.Audit)

FOREIGN = DOCUMENTS
"""What foreign topics carry once they are decoded: whoever reads this reads them as well."""

TOPICS = (REQUESTS, PROMPTS, CONTEXTS, COMPLETIONS, RESULTS, FAILURES, MESSAGES, DELIVERIES, DOCUMENTS)
"""What is work, in a topic for each."""

PEOPLES = (CONTROL, LETTERS, AUDIT)
"""What people say and do. `CONTROL` is read by every worker, whole, and has one partition, as `AUDIT` has."""

WEBHOOK_TIERS = (
    Tier("5s", 5),
    Tier("30s", 30),
    Tier("5m", 300),
    Tier("30m", 1_800),
    Tier("2h", 7_200),
    Tier("5h", 18_000),
    Tier("10h", 36_000),
)

STAGES = (
    stage("preprocess", REQUESTS, PROMPTS, Preprocess, repartition=True, enforce_deadline=True),
    stage("retrieve", PROMPTS, CONTEXTS, Retrieve, concurrency=32, enforce_deadline=True),
    stage("infer", CONTEXTS, COMPLETIONS, Infer, concurrency=64, timeout=600, costly=True, enforce_deadline=True),
    stage("postprocess", COMPLETIONS, RESULTS, Postprocess),
    forked(
        "notify",
        (RESULTS, FAILURES),
        (DELIVERIES, MESSAGES),
        Notify,
        concurrency=256,
        timeout=90,  # longer than any endpoint's own, which tells what happened
        retry=RetryPolicy(SCHEDULE, tiers=WEBHOOK_TIERS),
    ),
    stage(
        "deliver",
        MESSAGES,
        DELIVERIES,
        Deliver,
        concurrency=256,
        timeout=90,
        retry=RetryPolicy(SCHEDULE, in_place=True),
    ),
    sink("index", DOCUMENTS, Index, concurrency=16, repartition=True),
)

DAY_MS = 86_400_000
WORK_DAYS, DEAD_DAYS, AUDIT_DAYS = 7, 30, 366
"""How long work and retry topics, dead letters, and what people did, are kept; `topics check` holds the first two
against the deadlines."""


def reads_foreign(one: Stage) -> bool:
    """Whether a stage reads the foreign topics that are configured, beside its own."""
    return FOREIGN in one.sources


def topic_specs(prefix: str, partitions: int) -> list[TopicSpec]:
    """Say what every topic of the pipeline must be like. From `prompts` on, all share one partition count.

    Foreign topics are none of these: others make them, and choose what they are like.
    """
    work = {"cleanup.policy": "delete", "message.timestamp.type": "CreateTime", "retention.ms": str(WORK_DAYS * DAY_MS)}
    dead = work | {"retention.ms": str(DEAD_DAYS * DAY_MS)}
    specs = []
    for declared in TOPICS:
        for lane in declared.lanes:
            name = names.topic(prefix, declared.noun, lane)
            specs.append(TopicSpec(name, partitions, work | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}))
    for one in STAGES:
        size = {"max.message.bytes": str(MAX_FOREIGN_COPY_BYTES if reads_foreign(one) else MAX_COPY_BYTES)}
        specs += [
            TopicSpec(names.retry_topic(prefix, one.name, tier), partitions, work | size) for tier in one.retry.tiers
        ]
        specs.append(TopicSpec(names.dead_letter_topic(prefix, one.name), partitions, dead | size))
    # Compacted: what is in force is kept for ever, what was taken back goes.
    kept = {"cleanup.policy": "compact", "message.timestamp.type": "CreateTime"}
    size = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    specs.append(TopicSpec(names.topic(prefix, CONTROL.noun), 1, kept | size))
    specs.append(TopicSpec(names.topic(prefix, LETTERS.noun), partitions, kept | size))
    audit = work | size | {"retention.ms": str(AUDIT_DAYS * DAY_MS)}
    specs.append(TopicSpec(names.topic(prefix, AUDIT.noun), 1, audit))
    return specs


def chain(prefix: str) -> list[str]:
    """Name the topics that must have one partition count: all but what repartitioning stages read and copy to."""
    free = {source.noun for one in STAGES if one.repartition for source in one.sources}
    loose = {f"{prefix}.{one.name}." for one in STAGES if one.repartition}
    loose_topics = {names.topic(prefix, noun) for noun in (*free, *(one.noun for one in PEOPLES))}
    every = [spec.name for spec in topic_specs(prefix, 1)]
    return [name for name in every if name not in loose_topics and not name.startswith(tuple(loose))]


def growth_order(prefix: str) -> list[str]:
    """Name the topics of `chain` in the order in which they grow: what a record leads to before what it stands on."""
    order: list[str] = []
    for one in reversed(STAGES):
        order += [names.topic(prefix, output.noun, lane) for output in one.outputs for lane in output.lanes]
        if not one.repartition:
            order.append(names.dead_letter_topic(prefix, one.name))
            order += [names.retry_topic(prefix, one.name, tier) for tier in one.retry.tiers]
            if MESSAGES not in one.sources:
                # What `deliver` reads stands on failures, by way of `notify`: they cannot grow before and after it.
                order.append(names.topic(prefix, FAILURES.noun))
    return list(dict.fromkeys(order))

"""What working with dead letters is made of: the broker, the codec, and what each stage's letters were."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from pipeline import topology
from pipeline.broker.kafka_producer import open_producer
from pipeline.broker.kafka_reader import open_reader
from pipeline.core import names
from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import RecordDecoder
from pipeline.ops.letter_decode import DeadTopic
from pipeline.ops.letter_scan import Progress
from pipeline.ops.letters import LetterPorts
from pipeline.resources import resource
from pipeline.runtime.plan import plan
from pipeline.settings import Configured
from pipeline.wire.codec import AvroCodec
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.registered import SchemaRegistry
from pipeline.wire.schemas import load_schemas
from pipeline.wire.versions import ValueVersions
from pipeline.wiring import CLOCK, Say, opened_admin, opened_registry, tables_of
from pipeline.world import kafka_of


@asynccontextmanager
async def open_letter_ports(
    configured: Configured, say: Say, progress: Progress, others: Sequence[str] = ()
) -> AsyncIterator[LetterPorts]:
    """Open what working with dead letters takes. `others` are dead-letter topics that are none of our stages'.

    Raises ConfigurationError where the broker does not answer, or one of `others` does not exist.
    """
    kafka, prefix = kafka_of(configured), configured.settings.topic_prefix
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(opened_admin(configured, say))
        producer = await stack.enter_async_context(open_producer(kafka))
        registry = await stack.enter_async_context(opened_registry(configured))
        there = await admin.partitions(others)
        if missing := [name for name in others if name not in there]:
            raise ConfigurationError(f"--topic {missing[0]}: there is no such topic")
        schemas = load_schemas(resource("schemas"))
        yield LetterPorts(
            # Letters are looked at and dropped: their reader need not make them small to keep.
            opens=partial(open_reader, kafka, f"{prefix}.dlq", committed=True, kept=False),
            shelf=admin,
            codec=AvroCodec(schemas, registry),
            versions=ValueVersions(schemas, registry),
            producer=producer,
            clock=CLOCK,
            topics={**_ours(configured, registry), **{name: DeadTopic(name) for name in others}},
            states=names.topic(prefix, topology.LETTERS.noun),
            audit=names.topic(prefix, topology.AUDIT.noun),
            progress=progress,
        )


def _ours(configured: Configured, registry: SchemaRegistry | None) -> Mapping[str, DeadTopic]:
    tables = tables_of(configured, topology.STAGES)
    found = {}
    for stage in topology.STAGES:
        bound = plan(stage, configured.settings.topic_prefix)
        reads = tables is not None and topology.reads_foreign(stage)
        foreign: RecordDecoder | None = ChangeDecoder(tables, registry) if tables is not None and reads else None
        sources = {name: one.declared for name, one in bound.sources.items()}
        found[bound.dead_letters] = DeadTopic(bound.dead_letters, stage.name, stage.open_topic, sources, foreign)
    return found

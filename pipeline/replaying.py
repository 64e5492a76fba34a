"""The composition of replays: what reads dead letters and their states, and what writes copies in transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

from pipeline import topology, wiring
from pipeline.broker.kafka_reader import open_reader
from pipeline.broker.kafka_transactions import open_transactions
from pipeline.ops.log_scan import dead_of_others, unhindered
from pipeline.ops.replay import Replays, group
from pipeline.ops.replay_letters import Known
from pipeline.resources import resource
from pipeline.settings import Configured
from pipeline.wire.codec import AvroCodec
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.schemas import load_schemas
from pipeline.world import kafka_of


@asynccontextmanager
async def open_replays(configured: Configured, say: wiring.Say, others: Sequence[str] = ()) -> AsyncIterator[Replays]:
    """Open what replays take. `others` are dead-letter topics that are none of our stages'.

    Raises ConfigurationError where the broker does not answer, or a topic is missing.
    """
    prefix, kafka = configured.settings.topic_prefix, kafka_of(configured)
    tables = wiring.tables_of(configured, topology.STAGES)
    catalog = wiring.catalog_of(configured)
    async with AsyncExitStack() as stack:
        stack.enter_context(unhindered())
        admin = await stack.enter_async_context(wiring.opened_admin(configured, say))
        registry = await stack.enter_async_context(wiring.opened_registry(configured))
        counts = await admin.partitions_under(f"{prefix}.")
        await wiring.need_topics(admin, prefix, topology.LETTERS.noun, topology.AUDIT.noun)
        known_others = await dead_of_others(admin, others)
        known = Known(
            prefix=prefix,
            stages=wiring.STAGES,
            catalog=catalog,
            codec=AvroCodec(load_schemas(resource("schemas")), registry),
            clock=wiring.CLOCK,
            decoder=ChangeDecoder(tables, registry) if tables else None,
            foreign=partial(wiring.foreign_topics, configured),
            embedding_model=configured.environment.get("EMBEDDING_MODEL"),
            partitions={**known_others, **counts},
            others=others,
        )
        name = group(prefix)
        yield Replays(
            known,
            await stack.enter_async_context(open_reader(kafka, name, committed=True, kept=False)),
            await stack.enter_async_context(open_reader(kafka, f"{name}.states", committed=True, kept=False)),
            await stack.enter_async_context(open_transactions(kafka, name, name)),
            uuid4().hex,
            say,
        )

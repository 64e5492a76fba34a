"""The composition of replays: what reads dead letters and their states, and what writes copies in transactions."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

from pipeline import topology, wiring
from pipeline.broker.kafka_reader import open_reader
from pipeline.broker.kafka_transactions import open_transactions
from pipeline.core import names
from pipeline.core.errors import ConfigurationError
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

    Raises ConfigurationError where the broker does not answer, or a topic is missing. Meanwhile nobody looks for
    cycles of garbage: among a hundred thousand letters that takes a fifth of the time, and there are none.
    """
    prefix, kafka = configured.settings.topic_prefix, kafka_of(configured)
    tables = wiring.tables_of(configured, topology.STAGES)
    catalog = wiring.catalog_of(configured)
    async with AsyncExitStack() as stack:
        gc.disable()
        stack.callback(gc.enable)
        admin = await stack.enter_async_context(wiring.opened_admin(configured, say))
        registry = await stack.enter_async_context(wiring.opened_registry(configured))
        counts = await admin.partitions_under(f"{prefix}.")
        missing = [one for one in (topology.LETTERS, topology.AUDIT) if names.topic(prefix, one.noun) not in counts]
        if missing:
            topics = ", ".join(names.topic(prefix, one.noun) for one in missing)
            raise ConfigurationError(f"{topics} does not exist: run `pipeline topics create`")
        known_others = await admin.partitions(others)
        if strange := [name for name in others if name not in known_others]:
            raise ConfigurationError(f"--topic {strange[0]}: there is no such topic")
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

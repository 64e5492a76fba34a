"""What `explain` and `tail` are made of: the layout of the topics, a reader, the cluster's offsets, the codec."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pipeline import topology
from pipeline.broker.kafka_reader import open_reader
from pipeline.core.errors import ConfigurationError
from pipeline.core.ports import Codec
from pipeline.ops.explain import Explainer
from pipeline.ops.explain_layout import Layout, layout
from pipeline.ops.log_scan import Progress
from pipeline.ops.tail import Line, Tail, Wanted, chosen
from pipeline.settings import Configured
from pipeline.wiring import CLOCK, Say, catalog_of, foreign_topics, open_tail, opened_admin, opened_codec
from pipeline.world import kafka_of


def layout_of(configured: Configured) -> Layout:
    """Lay out the topics of the pipeline that is configured, those of others that its stages read included."""
    foreign = {stage.name: foreign_topics(configured, stage) for stage in topology.STAGES}
    return layout(configured.settings.topic_prefix, topology.STAGES, foreign)


@asynccontextmanager
async def open_explainer(configured: Configured, progress: Progress, say: Say) -> AsyncIterator[Explainer]:
    """Open what a question takes. Raises ConfigurationError where the broker does not answer."""
    catalog = catalog_of(configured)
    types = catalog.types
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(opened_admin(configured, say))
        # Committed ones: a replay writes in transactions, and what was aborted never took place.
        reader = await stack.enter_async_context(
            open_reader(kafka_of(configured), "explain", committed=True, kept=False)
        )
        codec = await stack.enter_async_context(opened_codec(configured))
        yield Explainer(
            layout=layout_of(configured),
            reader=reader,
            offsets=admin,
            codec=codec,
            clock=CLOCK,
            model_of=lambda kind: types[kind].model if kind in types else "",
            endpoint_of=lambda kind: types[kind].endpoint if kind in types else catalog.default_endpoint,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class Followed:
    """What is to be followed: topics or stages by name, all where there are none, and which records of them."""

    names: Sequence[str]
    wanted: Wanted
    from_start: bool


@asynccontextmanager
async def open_lines(configured: Configured, followed: Followed, say: Say) -> AsyncIterator[AsyncIterator[Line]]:
    """Follow topics, a line for each record. Those that do not exist are said, and left out.

    Raises ConfigurationError for an unknown name, where no topic exists, and where the broker does not answer.
    """
    known = layout_of(configured)
    topics = chosen(known, followed.names)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(opened_admin(configured, say))
        there = await admin.partitions(topics)
        _tell_missing([topic for topic in topics if topic not in there], there, say)
        codec: Codec = await stack.enter_async_context(opened_codec(configured))
        records = await stack.enter_async_context(open_tail(configured, list(there), from_start=followed.from_start))
        yield Tail(known, codec, CLOCK, followed.wanted.of(topics)).lines(records)


def _tell_missing(missing: Sequence[str], there: Collection[str], say: Say) -> None:
    told = f"{', '.join(missing)} does not exist: `pipeline topics create` makes what is missing"
    if not there:
        raise ConfigurationError(told)
    if missing:
        say(told)

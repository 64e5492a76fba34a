"""The composition root: everything is opened here, in AsyncExitStacks, and handed what it needs as plain values."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol
from uuid import uuid4

from prometheus_client import REGISTRY

from pipeline import topology
from pipeline.broker.admin import Admin, open_admin
from pipeline.broker.config import KafkaConfig
from pipeline.broker.kafka_consumer import open_consumer
from pipeline.broker.kafka_producer import open_producer
from pipeline.broker.kafka_reader import open_reader
from pipeline.broker.kafka_transactions import open_transactions
from pipeline.broker.tail import open_tail as open_tail_of
from pipeline.clients.endpoint_book import BookPorts
from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.control import ControlState, Entry, expired, key_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.limits import MAX_FOREIGN_BYTES
from pipeline.core.payloads import Audit, Document, Request
from pipeline.core.ports import Clock, Codec, Producer
from pipeline.core.record import Record
from pipeline.core.stage import Stage
from pipeline.core.tables import Tables
from pipeline.ops.log_scan import Shelf
from pipeline.ops.publish import Publisher
from pipeline.ops.topic_check import TopicState, foreign_problems, problems
from pipeline.resources import resource
from pipeline.runtime.control import ControlTopic, followed
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import Plan, plan
from pipeline.runtime.probes import serve_probes
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Configured
from pipeline.settings_catalog import load_catalog
from pipeline.settings_tables import load_tables
from pipeline.telemetry.metrics import StageMetrics
from pipeline.wire.codec import AvroCodec
from pipeline.wire.debezium import ChangeDecoder
from pipeline.wire.registered import SchemaRegistry
from pipeline.wire.registry_wait import wait_for_schemas
from pipeline.wire.schemas import load_schemas
from pipeline.world import World, kafka_of

VERSION = version("llm-event-pipeline")
CLOCK = time.time
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in topology.STAGES}

FLOOD_SECONDS = 600.0
"""How long a flood of dead letters is remembered over restarts."""

Say = Callable[[str], None]


def catalog_of(configured: Configured) -> Catalog:
    """Read the catalog that is configured. Raises ConfigurationError naming the file and what is wrong."""
    return load_catalog(configured.settings.catalog or resource("deploy", "catalog.yaml"))


def chosen(wanted: Sequence[str], configured: Configured) -> list[Stage]:
    """Find stages by name, with the concurrency that is configured. Raises ConfigurationError for an unknown name."""
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        raise ConfigurationError(f"no stage is called {', '.join(unknown)}: there are {', '.join(STAGES)}")
    return [
        replace(STAGES[name], concurrency=configured.concurrency.get(name, STAGES[name].concurrency))
        for name in dict.fromkeys(wanted)
    ]


@asynccontextmanager
async def opened_admin(configured: Configured, say: Say) -> AsyncIterator[Admin]:
    """Open the admin client once the broker answers. Raises ConfigurationError after PIPELINE_STARTUP_SECONDS."""
    async with open_admin(kafka_of(configured)) as admin:
        await admin.wait_for_broker(configured.settings.startup_seconds, say)
        yield admin


@asynccontextmanager
async def opened_registry(configured: Configured) -> AsyncIterator[SchemaRegistry | None]:
    """Open the schema registry that is configured; None where there is none."""
    url = configured.environment.get("SCHEMA_REGISTRY_URL")
    if not url:
        yield None
        return
    from pipeline.wire.registry import RegistryConfig, open_registry  # noqa: PLC0415  # 0.3 s, where configured

    async with open_registry(RegistryConfig(url, configured.settings.topic_prefix), CLOCK) as registry:
        yield registry


@asynccontextmanager
async def opened_codec(configured: Configured) -> AsyncIterator[AvroCodec]:
    """Open the codec, with a schema registry where one is configured."""
    async with opened_registry(configured) as registry:
        yield AvroCodec(load_schemas(resource("schemas")), registry)


def tables_of(configured: Configured, stages: Sequence[Stage]) -> Tables | None:
    """Read the mapping of tables, where one is configured and one of `stages` reads what it maps.

    Raises ConfigurationError naming the file and what is wrong.
    """
    path = configured.settings.tables
    return load_tables(path) if path and any(map(topology.reads_foreign, stages)) else None


def foreign_topics(configured: Configured, stage: Stage) -> Collection[str]:
    """Name the topics of others that a stage reads beside its own."""
    tables = tables_of(configured, [stage])
    return tables.tables if tables else ()


@dataclass(frozen=True, slots=True)
class OpenWorker:
    """A worker that can run, and where its probes answer."""

    worker: Worker
    probes: str


@asynccontextmanager
async def open_worker(
    configured: Configured, wanted: Sequence[str], say: Say, accept_dead: int = 0
) -> AsyncIterator[OpenWorker]:
    """Open everything that the stages `wanted` need. Raises ConfigurationError where something is missing.

    `accept_dead` is how many dead letters of each stage a person lets pass, whatever they look like.
    """
    stages = chosen(wanted, configured)
    settings, tables = configured.settings, tables_of(configured, stages)
    async with AsyncExitStack() as stack:
        world = _world(configured, stages, stack)
        handlers = [await world.handler(stage) for stage in stages]
        kafka = kafka_of(configured)
        admin = await stack.enter_async_context(opened_admin(configured, say))
        producer = await stack.enter_async_context(open_producer(kafka))
        registry = await stack.enter_async_context(opened_registry(configured))
        codec = AvroCodec(load_schemas(resource("schemas")), registry)
        await wait_for_schemas(codec, _written(stages), settings.startup_seconds, say)
        kafka = kafka.with_protocol(await admin.group_protocol())
        observer = Observer(StageMetrics(REGISTRY))
        control = await stack.enter_async_context(followed(await _control(configured, kafka, codec, stack, CLOCK)))
        world.connect(BookPorts(control, producer, codec, settings.topic_prefix, CLOCK))
        decoder = ChangeDecoder(tables, registry, await world.rereads()) if tables else None
        runners = []
        for stage, handler in zip(stages, handlers, strict=True):
            foreign = decoder if topology.reads_foreign(stage) else None
            bound = plan(stage, settings.topic_prefix, foreign.topics if foreign else ())
            consumer = await stack.enter_async_context(open_consumer(kafka, bound.group, admin.topic_ids))
            answers = f"{bound.group}.answers"
            reader = await stack.enter_async_context(open_reader(kafka, answers)) if stage.costly else None
            fresh = await admin.written_since([bound.dead_letters], int((CLOCK() - FLOOD_SECONDS) * 1000))
            kit = Kit(
                consumer=consumer,
                producer=producer,
                codec=codec,
                clock=CLOCK,
                observer=observer,
                version=VERSION,
                drain_seconds=settings.drain_seconds,
                dead_before=fresh,
                accept_dead=accept_dead,
                counts=admin.partitions,
                reader=reader,
                admission=control,
                members=admin.members,
                foreign=foreign,
            )
            runners.append(Runner(bound, handler, await _transacting(kit, bound, kafka, stack)))
        probes = serve_probes(settings.probes_host, settings.probes_port, runners, REGISTRY)
        yield OpenWorker(Worker(runners), await stack.enter_async_context(probes))


def _world(configured: Configured, stages: Sequence[Stage], stack: AsyncExitStack) -> World:
    calls = next((one.concurrency for one in stages if one.name == "infer"), 1)
    return World(configured, catalog_of(configured), stack, calls, CLOCK)


async def _transacting(kit: Kit, bound: Plan, kafka: KafkaConfig, stack: AsyncExitStack) -> Kit:
    """Open the transactions of a stage that is exactly once; others have none."""
    if bound.stage.delivery != "exactly once":
        return kit
    unique = names.transactional_id(bound.prefix, bound.stage.name, uuid4().hex)
    opened = open_transactions(kafka, bound.group, unique)
    return replace(kit, transactions=await stack.enter_async_context(opened))


async def _control(
    configured: Configured, kafka: KafkaConfig, codec: Codec, stack: AsyncExitStack, clock: Clock
) -> ControlTopic:
    """Make what reads the control topic; nothing is read yet."""
    types = catalog_of(configured).types
    topic = names.topic(configured.settings.topic_prefix, topology.CONTROL.noun)
    reader = await stack.enter_async_context(open_reader(kafka, topic))
    return ControlTopic(topic, reader, codec, clock, lambda kind: types[kind].model if kind in types else "")


def _written(stages: Sequence[Stage]) -> Collection[str]:
    own = {one.noun for stage in stages for one in stage.outputs}
    return own | {"failures"} | ({"control", "audit"} if topology.DELIVERIES.noun in own else set())


@dataclass(frozen=True, slots=True)
class Desk:
    """What a person's commands work with: a publisher, the admin client, the codec.

    `foreign` names the topics of others that a stage reads.
    """

    publisher: Publisher
    admin: Admin
    codec: Codec
    producer: Producer
    prefix: str
    known: Mapping[str, Stage] = field(default_factory=lambda: STAGES)
    foreign: Callable[[Stage], Collection[str]] = lambda _: ()

    async def document(self, document: Document) -> None:
        """Write one state of a document."""
        await self.publisher.document(document)

    async def request(self, request: Request) -> str:
        """Write a request; returns its job's id."""
        return await self.publisher.request(request)

    async def lag(self, stage: str) -> int:
        """Count what a stage has still to settle on its sources, foreign ones included, and tiers."""
        bound = plan(self.known[stage], self.prefix, self.foreign(self.known[stage]))
        return sum((await self.admin.lag(bound.group, bound.topics)).values())

    async def dead(self) -> int:
        """Count the records in all dead-letter topics."""
        topics = [names.dead_letter_topic(self.prefix, stage) for stage in self.known]
        return sum((await self.admin.end_offsets(topics)).values())


@asynccontextmanager
async def open_desk(configured: Configured, say: Say, source: str = "pipeline-submit") -> AsyncIterator[Desk]:
    """Open what commands need to write and to look. Raises ConfigurationError where the broker does not answer."""
    prefix = configured.settings.topic_prefix
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(opened_admin(configured, say))
        producer = await stack.enter_async_context(open_producer(kafka_of(configured)))
        codec = await stack.enter_async_context(opened_codec(configured))
        foreign = partial(foreign_topics, configured)
        yield Desk(Publisher(producer, codec, prefix, source), admin, codec, producer, prefix, foreign=foreign)


@dataclass(frozen=True, slots=True)
class ControlDesk:
    """What is in force when it is opened, and how to tell more; `shelf` is the admin client."""

    known: ControlState
    publisher: Publisher
    shelf: Shelf

    @property
    def state(self) -> ControlState:
        """What is in force now."""
        return self.known.fold((), CLOCK())

    async def tell(self, entries: Sequence[Entry], audits: Sequence[Audit]) -> None:
        """Write to the audit what is done, and then do it: write entries for all workers.

        What has expired is cleared away, so that the compacted topic stays small.
        """
        await self.publisher.audit(audits)
        stale = [(key_of(one), None) for one in self.known.cancels.values() if expired(one, CLOCK())]
        await self.publisher.control([*entries, *stale])


async def need_topics(admin: Admin, prefix: str, *nouns: str) -> None:
    """Raise ConfigurationError where one of our topics is not there: what is written to it would go nowhere."""
    topics = [names.topic(prefix, noun) for noun in nouns]
    there = await admin.partitions(topics)
    if missing := [name for name in topics if name not in there]:
        raise ConfigurationError(f"{', '.join(missing)} does not exist: run `pipeline topics create`")


@asynccontextmanager
async def open_control(configured: Configured, say: Say, *also: str) -> AsyncIterator[ControlDesk]:
    """Read what is in force; `also` are the nouns of other topics that are needed.

    Raises ConfigurationError where the broker does not answer or a topic is not there.
    """
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(configured, say))
        # By a clock that stands still nothing has expired: what has is to be cleared away.
        control = await _control(configured, kafka_of(configured), desk.codec, stack, lambda: 0.0)
        await need_topics(desk.admin, desk.prefix, topology.CONTROL.noun, *also)
        await control.begin()
        yield ControlDesk(control.state, desk.publisher, desk.admin)


@asynccontextmanager
async def open_tail(
    configured: Configured, topics: Sequence[str], *, from_start: bool = False
) -> AsyncIterator[AsyncIterator[Record]]:
    """Read `topics` without a group, from now on or from the start."""
    async with open_tail_of(kafka_of(configured), topics, from_start=from_start) as records:
        yield records


@asynccontextmanager
async def open_index(configured: Configured) -> AsyncIterator[Any]:
    """Open the index as `clients.qdrant.LivePassages`, whose class takes 1.5 s to import."""
    async with AsyncExitStack() as stack:
        yield await World(configured, catalog_of(configured), stack, 1, CLOCK).passages()


async def check_source(configured: Configured) -> None:
    """Ask the source database that is configured what stages ask it. Raises PipelineError with what is wrong."""
    async with AsyncExitStack() as stack:
        await World(configured, catalog_of(configured), stack, 1, CLOCK).check_source()


async def check_registry(configured: Configured) -> None:
    """Look all schemas up in the registry that is configured. Raises PipelineError with what is wrong."""
    async with opened_codec(configured) as codec:
        await codec.prepare(one.noun for one in (*topology.TOPICS, *topology.PEOPLES))


def topic_names(configured: Configured) -> list[str]:
    """Name all topics of the prefix that is configured."""
    return [spec.name for spec in topology.topic_specs(configured.settings.topic_prefix, 1)]


async def create_topics(configured: Configured, admin: Admin) -> Mapping[str, str]:
    """Create the topics that are missing; returns of each whether it was `created` or is `present`."""
    return await admin.create_topics(
        topology.topic_specs(configured.settings.topic_prefix, configured.settings.partitions)
    )


class Grows(Protocol):
    """What of the admin client growing takes; the broker in memory has it as well."""

    async def partitions(self, topics: Sequence[str], /) -> Mapping[str, int]:
        """Count the partitions of those topics that exist."""
        ...

    async def grow_topic(self, topic: str, partitions: int, /) -> None:
        """Raise the number of a topic's partitions."""
        ...


async def grow_topics(prefix: str, admin: Grows, partitions: int) -> AsyncIterator[tuple[str, int]]:
    """Raise the partition count of the chain's topics, from its end to its beginning; yields each with its old count.

    Raises ConfigurationError where one is missing, or has more than that: partitions cannot be taken away.
    """
    order = topology.growth_order(prefix)
    found = await admin.partitions(order)
    missing = [name for name in order if name not in found]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} does not exist: run `pipeline topics create`")
    if (most := max(found.values())) > partitions:
        raise ConfigurationError(
            f"topics have {most} partitions already, and Kafka takes none away: ask for {most} or more"
        )
    for name in order:
        await admin.grow_topic(name, partitions)
        yield name, found[name]


async def delete_topics(configured: Configured, admin: Admin) -> None:
    """Delete all topics of the prefix that is configured, with what is in them."""
    await admin.delete_topics(topic_names(configured))


async def check_topics(configured: Configured, admin: Admin) -> list[str]:
    """Say in sentences what is wrong with the topics on the broker."""
    prefix = configured.settings.topic_prefix
    specs = topology.topic_specs(prefix, configured.settings.partitions)
    others = [name for stage in topology.STAGES for name in foreign_topics(configured, stage)]
    described = await admin.describe_topics([*(spec.name for spec in specs), *others])
    found = {name: TopicState(topic.partitions, topic.config) for name, topic in described.items()}
    longest = max([600.0, *(kind.deadline_seconds for kind in catalog_of(configured).types.values())])
    wanted = {spec.name: TopicState(spec.partitions, spec.config) for spec in specs}
    return [
        *problems(found, wanted, topology.chain(prefix), longest),
        *foreign_problems(found, others, longest, MAX_FOREIGN_BYTES),
    ]

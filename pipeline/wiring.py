"""The composition root: everything is opened here, in AsyncExitStacks, and handed what it needs as plain values."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from typing import Any, Protocol, get_type_hints
from uuid import uuid4

from prometheus_client import REGISTRY

from pipeline import topology
from pipeline.broker.admin import Admin, open_admin
from pipeline.broker.config import KafkaConfig, from_environment
from pipeline.broker.kafka_consumer import open_consumer
from pipeline.broker.kafka_producer import open_producer
from pipeline.broker.kafka_reader import open_reader
from pipeline.broker.kafka_transactions import open_transactions
from pipeline.broker.tail import open_tail as open_tail_of
from pipeline.clients.webhook import addresses, open_webhooks
from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.control import ControlState, Entry, expired, key_of
from pipeline.core.errors import ConfigurationError
from pipeline.core.payloads import Document, Request
from pipeline.core.ports import ChatModel, Clock, Codec, PassageSearch, PassageStore, Producer, WebhookSender
from pipeline.core.record import Record
from pipeline.core.stage import Handler, Stage
from pipeline.ops.publish import Publisher
from pipeline.ops.topic_check import TopicState, problems
from pipeline.resources import resource
from pipeline.runtime.control import ControlTopic, followed
from pipeline.runtime.observe import Observer
from pipeline.runtime.plan import plan
from pipeline.runtime.probes import serve_probes
from pipeline.runtime.runner import Kit, Runner
from pipeline.runtime.worker import Worker
from pipeline.settings import Configured
from pipeline.settings_catalog import load_catalog
from pipeline.telemetry.metrics import ModelMetrics, StageMetrics
from pipeline.wire.codec import AvroCodec
from pipeline.wire.schemas import load_schemas

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


def kafka_of(configured: Configured) -> KafkaConfig:
    """Read what is configured by `KAFKA_*`. Raises ConfigurationError where that cannot work."""
    configured.environment.need("KAFKA_BOOTSTRAP_SERVERS", "the address of the Kafka brokers")
    return from_environment({name: value.text for name, value in configured.environment.starting("KAFKA_").items()})


@asynccontextmanager
async def opened_admin(configured: Configured, say: Say) -> AsyncIterator[Admin]:
    """Open the admin client once the broker answers. Raises ConfigurationError after PIPELINE_STARTUP_SECONDS."""
    async with open_admin(kafka_of(configured)) as admin:
        await admin.wait_for_broker(configured.settings.startup_seconds, say)
        yield admin


@asynccontextmanager
async def opened_codec(configured: Configured) -> AsyncIterator[AvroCodec]:
    """Open the codec, with a schema registry where one is configured."""
    schemas = load_schemas(resource("schemas"))
    url = configured.environment.get("SCHEMA_REGISTRY_URL")
    async with AsyncExitStack() as stack:
        registry = None
        if url:
            from pipeline.wire.registry import RegistryConfig, open_registry  # noqa: PLC0415  # 0.3 s, where configured

            config = RegistryConfig(url, configured.settings.topic_prefix)
            registry = await stack.enter_async_context(open_registry(config, CLOCK))
        yield AvroCodec(schemas, registry)


class World:
    """The ports that handlers ask for, each opened at the first one that needs it and shared by all."""

    def __init__(self, configured: Configured, stack: AsyncExitStack, calls: int) -> None:
        """Open into `stack`; `calls` is the hard cap on model calls in flight."""
        self._configured = configured
        self._stack = stack
        self._calls = calls
        self._opened: dict[str, Any] = {}
        self._openers: Mapping[type, tuple[str, Callable[[], Awaitable[Any]]]] = {
            Catalog: ("catalog", self._catalog),
            ChatModel: ("model", self._model),
            PassageSearch: ("passages", self._passages),
            PassageStore: ("passages", self._passages),
            WebhookSender: ("webhooks", self._webhooks),
        }

    async def handler(self, stage: Stage) -> Handler[Any, Any]:
        """Build a stage's handler: each of its fields is a port, named by its type."""
        hints = get_type_hints(stage.handler)
        ports = {field.name: await self._open(hints[field.name]) for field in fields(stage.handler)}  # type: ignore[arg-type]  # every handler is a dataclass
        return stage.handler(**ports)

    async def _open(self, port: type) -> Any:
        name, opener = self._openers[port]
        if name not in self._opened:
            self._opened[name] = await opener()
        return self._opened[name]

    async def _catalog(self) -> Catalog:
        return catalog_of(self._configured)

    async def _model(self) -> ChatModel:
        from pipeline.clients.llm import open_chat_model  # noqa: PLC0415  # 0.7 s that only `infer` needs

        environment = self._configured.environment
        key = environment.need("OPENAI_API_KEY", "the key of the model provider; any text where it wants none")
        return await self._stack.enter_async_context(
            open_chat_model(environment.get("OPENAI_BASE_URL"), key, self._calls, CLOCK, ModelMetrics(REGISTRY))
        )

    async def _passages(self) -> PassageSearch:
        from pipeline.clients.qdrant import open_passages  # noqa: PLC0415  # 1.5 s that only two stages need

        environment, path = self._configured.environment, self._configured.data / "qdrant"
        return await self._stack.enter_async_context(
            open_passages(
                path,
                environment.get("QDRANT_URL"),
                environment.get("QDRANT_API_KEY"),
                f"{self._configured.settings.topic_prefix}-passages",
                CLOCK,
            )
        )

    async def _webhooks(self) -> WebhookSender:
        catalog: Catalog = await self._open(Catalog)
        targets = addresses(catalog.endpoints, self._configured.environment.get)
        allow = self._configured.settings.allow_loopback_webhooks
        return await self._stack.enter_async_context(open_webhooks(targets, allow_loopback=allow, clock=CLOCK))


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
    settings = configured.settings
    async with AsyncExitStack() as stack:
        world = World(configured, stack, next((one.concurrency for one in stages if one.name == "infer"), 1))
        handlers = [await world.handler(stage) for stage in stages]
        kafka = kafka_of(configured)
        admin = await stack.enter_async_context(opened_admin(configured, say))
        producer = await stack.enter_async_context(open_producer(kafka))
        codec = await stack.enter_async_context(opened_codec(configured))
        await _prepare(codec, stages)
        kafka = kafka.with_protocol(await admin.group_protocol())
        observer = Observer(StageMetrics(REGISTRY))
        control = await stack.enter_async_context(followed(await _control(configured, kafka, codec, stack, CLOCK)))
        runners = []
        for stage, handler in zip(stages, handlers, strict=True):
            bound = plan(stage, settings.topic_prefix)
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
            )
            if stage.delivery == "exactly once":
                unique = names.transactional_id(settings.topic_prefix, stage.name, uuid4().hex)
                opened = open_transactions(kafka, bound.group, unique)
                kit = replace(kit, transactions=await stack.enter_async_context(opened))
            runners.append(Runner(bound, handler, kit))
        worker = Worker(runners)
        probes = serve_probes(settings.probes_host, settings.probes_port, runners, REGISTRY)
        yield OpenWorker(worker, await stack.enter_async_context(probes))


async def _control(
    configured: Configured, kafka: KafkaConfig, codec: Codec, stack: AsyncExitStack, clock: Clock
) -> ControlTopic:
    """Make what reads the control topic; nothing is read yet."""
    types = catalog_of(configured).types
    topic = names.topic(configured.settings.topic_prefix, topology.CONTROL.noun)
    reader = await stack.enter_async_context(open_reader(kafka, topic))
    return ControlTopic(topic, reader, codec, clock, lambda kind: types[kind].model if kind in types else "")


async def _prepare(codec: AvroCodec, stages: Sequence[Stage]) -> None:
    written = {stage.output.noun for stage in stages if stage.output} | {"failures"}
    await codec.prepare(sorted(written))


@dataclass(frozen=True, slots=True)
class Desk:
    """What a person's commands work with: a publisher, the admin client, the codec."""

    publisher: Publisher
    admin: Admin
    codec: Codec
    producer: Producer
    prefix: str
    known: Mapping[str, Stage] = field(default_factory=lambda: STAGES)

    async def document(self, document: Document) -> None:
        """Write one state of a document."""
        await self.publisher.document(document)

    async def request(self, request: Request) -> str:
        """Write a request; returns its job's id."""
        return await self.publisher.request(request)

    async def lag(self, stage: str) -> int:
        """Count what a stage has still to settle on its sources and tiers."""
        bound = plan(self.known[stage], self.prefix)
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
        yield Desk(Publisher(producer, codec, prefix, source), admin, codec, producer, prefix)


@dataclass(frozen=True, slots=True)
class ControlDesk:
    """What is in force when it is opened, and how to tell more."""

    known: ControlState
    publisher: Publisher

    @property
    def state(self) -> ControlState:
        """What is in force now."""
        return self.known.fold((), CLOCK())

    async def tell(self, entries: Sequence[Entry]) -> None:
        """Write entries; what has expired is cleared away, so that the compacted topic stays small."""
        stale = [(key_of(one), None) for one in self.known.cancels.values() if expired(one, CLOCK())]
        await self.publisher.control([*entries, *stale])


@asynccontextmanager
async def open_control(configured: Configured, say: Say) -> AsyncIterator[ControlDesk]:
    """Read what is in force. Raises ConfigurationError where the broker does not answer or the topic is not there."""
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(configured, say))
        # By a clock that stands still nothing has expired: what has is to be cleared away.
        control = await _control(configured, kafka_of(configured), desk.codec, stack, lambda: 0.0)
        if not await desk.admin.partitions([control.topic]):
            raise ConfigurationError(f"{control.topic} does not exist: run `pipeline topics create`")
        await control.begin()
        yield ControlDesk(control.state, desk.publisher)


@asynccontextmanager
async def open_tail(
    configured: Configured, topics: Sequence[str], *, from_start: bool = False
) -> AsyncIterator[AsyncIterator[Record]]:
    """Read `topics` without a group, from now on or from the start."""
    async with open_tail_of(kafka_of(configured), topics, from_start=from_start) as records:
        yield records


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
    found = await admin.describe_topics([spec.name for spec in specs])
    longest = max([600.0, *(kind.deadline_seconds for kind in catalog_of(configured).types.values())])
    return problems(
        {name: TopicState(topic.partitions, topic.config) for name, topic in found.items()},
        {spec.name: TopicState(spec.partitions, spec.config) for spec in specs},
        topology.chain(prefix),
        longest,
    )

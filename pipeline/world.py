"""The ports that handlers ask for, filled with what is configured: the world outside of Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from functools import cached_property, partial
from typing import Any, cast, get_type_hints

from prometheus_client import REGISTRY

from pipeline import topology
from pipeline.broker.admin import open_admin
from pipeline.broker.config import KafkaConfig, from_environment
from pipeline.clients.endpoint_book import BookPorts, ControlBook
from pipeline.clients.measured_store import MeasuredStore
from pipeline.clients.passage_freshness import Foreign, SettledFreshness
from pipeline.clients.webhook import addresses, open_webhooks
from pipeline.core.catalog import Catalog
from pipeline.core.index_ports import Embedder, Freshness, PassageSearch, PassageStore, Rereads
from pipeline.core.ports import ChatModel, Clock, EndpointBook, WebhookSender
from pipeline.core.stage import Handler, Stage
from pipeline.core.tables import Tables
from pipeline.runtime.plan import plan
from pipeline.settings import Configured
from pipeline.settings_tables import load_tables
from pipeline.telemetry.metrics import EndpointMetrics, IndexMetrics, ModelMetrics
from pipeline.wire.debezium_rereads import RereadRows


def kafka_of(configured: Configured) -> KafkaConfig:
    """Read what is configured by `KAFKA_*`. Raises ConfigurationError where that cannot work."""
    configured.environment.need("KAFKA_BOOTSTRAP_SERVERS", "the address of the Kafka brokers")
    return from_environment({name: value.text for name, value in configured.environment.starting("KAFKA_").items()})


class FreshnessOnDemand:
    """Opens what tells how fresh the index is at the first question: most requests ask for nothing of it."""

    def __init__(self, opener: Callable[[], Awaitable[Freshness]]) -> None:
        """Open with `opener`, once."""
        self._opener = opener
        self._opening = asyncio.Lock()
        self._opened: Freshness | None = None

    async def caught_up(self, source: str, version: int, asker: str) -> bool:
        """Whether the index is there; see the port."""
        async with self._opening:
            opened = self._opened = self._opened or await self._opener()
        return await opened.caught_up(source, version, asker)


class World:
    """The ports that handlers ask for, each opened at the first one that needs it and shared by all."""

    def __init__(
        self, configured: Configured, catalog: Catalog, stack: AsyncExitStack, calls: int, clock: Clock
    ) -> None:
        """Open into `stack`; `calls` is the hard cap on model calls in flight."""
        self._configured = configured
        self._known = catalog
        self._clock = clock
        self._stack = stack
        self._calls = calls
        self._opened: dict[str, Any] = {}
        self._openers: Mapping[type, tuple[str, Callable[[], Awaitable[Any]]]] = {
            Catalog: ("catalog", self._catalog),
            ChatModel: ("model", self._model),
            EndpointBook: ("book", self._book),
            Freshness: ("freshness", self._freshness),
            PassageSearch: ("passages", self._passages),
            PassageStore: ("store", self._store),
            Rereads: ("rereads", self.rereads),
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

    def connect(self, ports: BookPorts) -> None:
        """Let the book of the webhook endpoints read and write, where a handler has one."""
        if "book" in self._opened:
            self._opened["book"].connect(ports)

    async def passages(self) -> Any:
        """Open the index as what it is, which does more than the ports tell; its class takes 1.5 s to import."""
        return await self._open(PassageSearch)

    async def _catalog(self) -> Catalog:
        return self._known

    async def _model(self) -> ChatModel:
        from pipeline.clients.llm import open_chat_model  # noqa: PLC0415  # 0.7 s that only `infer` needs

        environment = self._configured.environment
        key = environment.need("OPENAI_API_KEY", "the key of the model provider; any text where it wants none")
        return await self._stack.enter_async_context(
            open_chat_model(environment.get("OPENAI_BASE_URL"), key, self._calls, self._clock, self._model_metrics)
        )

    @cached_property
    def _model_metrics(self) -> ModelMetrics:
        return ModelMetrics(REGISTRY)

    async def embedder(self) -> Embedder | None:
        """Open what makes dense vectors, once; None where no model is set, so that the index has sparse ones only."""
        model = self._configured.environment.get("EMBEDDING_MODEL")
        if model is not None and "embedder" not in self._opened:
            from pipeline.clients.embed import EmbeddingLimits, open_embedder  # noqa: PLC0415  # 0.7 s, where it is set

            environment, limits = self._configured.environment, EmbeddingLimits()
            key = environment.need("OPENAI_API_KEY", "the key of the model provider; any text where it wants none")
            self._opened["embedder"] = await self._stack.enter_async_context(
                open_embedder(environment.get("OPENAI_BASE_URL"), key, model, limits, self._clock, self._model_metrics)
            )
        return self._opened.get("embedder")

    async def _passages(self) -> PassageSearch:
        from pipeline.clients.qdrant import open_passages  # noqa: PLC0415  # 1.5 s that only two stages need

        environment, path = self._configured.environment, self._configured.data / "qdrant"
        return await self._stack.enter_async_context(
            open_passages(
                path,
                environment.get("QDRANT_URL"),
                environment.get("QDRANT_API_KEY"),
                f"{self._configured.settings.topic_prefix}-passages",
                self._clock,
                await self.embedder(),
            )
        )

    async def _store(self) -> PassageStore:
        return MeasuredStore(await self._open(PassageSearch), IndexMetrics(REGISTRY), self._clock)

    @cached_property
    def _tables(self) -> Tables | None:
        path = self._configured.settings.tables
        return load_tables(path) if path else None

    async def _source(self) -> Any:
        """Open the source database, once; None where none is configured."""
        url = self._configured.environment.get("SOURCE_DATABASE_URL")
        if url is not None and "source" not in self._opened:
            from pipeline.clients.source_database import open_source  # noqa: PLC0415  # 0.2 s, where it is set

            self._opened["source"] = await self._stack.enter_async_context(open_source(url, self._clock))
        return self._opened.get("source")

    async def rereads(self) -> RereadRows:
        """Open what reads rows again; without a query for any table it asks nobody.

        Raises ConfigurationError where a query has no database, or is none that works.
        """
        if "rereads" not in self._opened:
            tables = self._tables
            queried = tables is not None and any(table.reread for table in tables.tables.values())
            if queried:
                self._configured.environment.need("SOURCE_DATABASE_URL", "what `reread` in PIPELINE_TABLES asks")
            reader = RereadRows(tables, await self._source() if queried else None, self._clock)
            await reader.check()
            self._opened["rereads"] = reader
        return cast(RereadRows, self._opened["rereads"])

    async def check_source(self) -> None:
        """Ask the source database for what stages will ask of it. Raises PipelineError with what is wrong."""
        source = await self._source()
        await source.rows("SELECT 1")
        await self.rereads()
        if self._tables and self._tables.slot:
            await source.passed(self._tables.slot)

    async def _freshness(self) -> Freshness:
        foreign = Foreign()
        if tables := self._tables:
            # A worker that does not know them would take their changes for written when they are not.
            topics = {table.source: "" if table.version.column else topic for topic, table in tables.tables.items()}
            source = await self._source() if tables.slot else None
            foreign = Foreign(topics, partial(source.passed, tables.slot) if source else None)
        return FreshnessOnDemand(partial(self._settled, foreign))

    async def _settled(self, foreign: Foreign) -> Freshness:
        index = plan(
            next(one for one in topology.STAGES if one.name == "index"), self._configured.settings.topic_prefix
        )
        admin = await self._stack.enter_async_context(open_admin(kafka_of(self._configured)))
        return SettledFreshness(admin, index.group, list(index.sources), list(index.tiers), foreign, self._clock)

    async def _book(self) -> ControlBook:
        days = {name: one.disable_after_days for name, one in self._known.endpoints.items()}
        return ControlBook(days, EndpointMetrics(REGISTRY))

    async def _webhooks(self) -> WebhookSender:
        catalog: Catalog = await self._open(Catalog)
        environment = self._configured.environment
        targets = addresses(catalog.endpoints, environment.get, file_of=environment.file_of, tenants=catalog.tenants)
        allow = self._configured.settings.allow_loopback_webhooks
        return await self._stack.enter_async_context(open_webhooks(targets, allow_loopback=allow, clock=self._clock))

"""The ports that handlers ask for, filled with what is configured: the world outside of Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from functools import cached_property
from typing import Any, get_type_hints

from prometheus_client import REGISTRY

from pipeline.clients.measured_store import MeasuredStore
from pipeline.clients.webhook import addresses, open_webhooks
from pipeline.core.catalog import Catalog
from pipeline.core.ports import ChatModel, Clock, Embedder, PassageSearch, PassageStore, WebhookSender
from pipeline.core.stage import Handler, Stage
from pipeline.settings import Configured
from pipeline.telemetry.metrics import IndexMetrics, ModelMetrics


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
            PassageSearch: ("passages", self._passages),
            PassageStore: ("store", self._store),
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
            )
        )

    async def _store(self) -> PassageStore:
        return MeasuredStore(await self._open(PassageSearch), IndexMetrics(REGISTRY), self._clock)

    async def _webhooks(self) -> WebhookSender:
        catalog: Catalog = await self._open(Catalog)
        targets = addresses(catalog.endpoints, self._configured.environment.get)
        allow = self._configured.settings.allow_loopback_webhooks
        return await self._stack.enter_async_context(open_webhooks(targets, allow_loopback=allow, clock=self._clock))

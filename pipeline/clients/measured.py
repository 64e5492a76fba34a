"""Measures calls of a model from outside, so that no client has to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pipeline.core.errors import Outcome
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel
from pipeline.telemetry.metrics import ModelMetrics

T = TypeVar("T")


class MeasuredModel:
    """A chat model whose calls are counted and timed, by the catalog's name of the model."""

    def __init__(self, model: ChatModel, metrics: ModelMetrics) -> None:
        """Measure `model`."""
        self._model = model
        self._metrics = metrics

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call; see the port. What it raises is counted by its kind."""
        answer = await measured(self._metrics, call.model, self._model.complete(call))
        self._metrics.tokens.labels(call.model, "input").inc(answer.prompt_tokens)
        self._metrics.tokens.labels(call.model, "output").inc(answer.completion_tokens)
        return answer


async def measured(metrics: ModelMetrics, model: str, call: Awaitable[T]) -> T:
    """Await a call of a model, counted by how it ends, and timed."""
    loop = asyncio.get_running_loop()
    began, outcome = loop.time(), "unexpected"
    running = metrics.in_flight.labels(model)
    running.inc()
    try:
        answer = await call
        outcome = "ok"
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except Outcome as raised:
        outcome = type(raised).__name__.lower()
        raise
    finally:
        running.dec()
        metrics.calls.labels(model, outcome).inc()
        metrics.latency.labels(model).observe(loop.time() - began)
    return answer

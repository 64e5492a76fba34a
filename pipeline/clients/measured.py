"""Measures calls of a model from outside, so that no client has to."""

from __future__ import annotations

import asyncio

from pipeline.core.errors import Outcome
from pipeline.core.ports import ChatAnswer, ChatCall, ChatModel
from pipeline.telemetry.metrics import ModelMetrics


class MeasuredModel:
    """A chat model whose calls are counted and timed, by the catalog's name of the model."""

    def __init__(self, model: ChatModel, metrics: ModelMetrics) -> None:
        """Measure `model`."""
        self._model = model
        self._metrics = metrics

    async def complete(self, call: ChatCall) -> ChatAnswer:
        """Make one call; see the port. What it raises is counted by its kind."""
        loop = asyncio.get_running_loop()
        began, outcome = loop.time(), "unexpected"
        running = self._metrics.in_flight.labels(call.model)
        running.inc()
        try:
            answer = await self._model.complete(call)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Outcome as raised:
            outcome = type(raised).__name__.lower()
            raise
        finally:
            running.dec()
            self._metrics.calls.labels(call.model, outcome).inc()
            self._metrics.latency.labels(call.model).observe(loop.time() - began)
        self._metrics.tokens.labels(call.model, "input").inc(answer.prompt_tokens)
        self._metrics.tokens.labels(call.model, "output").inc(answer.completion_tokens)
        return answer

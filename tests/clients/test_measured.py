"""Tests of pipeline/clients/measured.py."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from pipeline.clients.measured import MeasuredModel
from pipeline.core.errors import Retry
from pipeline.devkit.fakes import FakeModel
from pipeline.telemetry.metrics import ModelMetrics
from tests.contracts.chat_model_contract import CALL


@pytest.mark.virtual
async def test_calls_are_counted_by_their_end() -> None:
    """Answers, refusals, cancelled calls and bugs each have their label; time and tokens are added up."""
    registry, inner = CollectorRegistry(), FakeModel(seconds=2.0)
    metrics = ModelMetrics(registry)
    model = MeasuredModel(inner, metrics)
    answer = await model.complete(CALL)
    inner.troubles.append(Retry("500"))
    with pytest.raises(Retry):
        await model.complete(CALL)
    running = asyncio.create_task(model.complete(CALL))
    await asyncio.sleep(1.0)
    assert registry.get_sample_value("pipeline_model_calls_in_flight", {"model": CALL.model}) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        await MeasuredModel(FakeModel(answer=lambda _call: str(1 // 0)), metrics).complete(CALL)

    def calls(outcome: str) -> float | None:
        return registry.get_sample_value("pipeline_model_calls_total", {"model": CALL.model, "outcome": outcome})

    assert [calls(outcome) for outcome in ("ok", "retry", "cancelled", "unexpected")] == [1, 1, 1, 1]
    assert registry.get_sample_value("pipeline_model_calls_in_flight", {"model": CALL.model}) == 0
    assert registry.get_sample_value("pipeline_model_latency_seconds_sum", {"model": CALL.model}) == pytest.approx(5.0)
    assert (
        registry.get_sample_value("pipeline_model_tokens_total", {"model": CALL.model, "direction": "output"})
        == answer.completion_tokens
    )

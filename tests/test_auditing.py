"""Tests of pipeline/auditing.py: what others see of audits that are repeated. The rest is in tests/cli."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import REGISTRY

from pipeline.auditing import open_watch
from pipeline.ops.index_audit import Difference, Findings
from pipeline.settings import Environment, load
from pipeline.wiring import STAGES

pytestmark = pytest.mark.local


async def _get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_the_last_audit_is_seen_from_outside() -> None:
    """Differences by source and kind, what was mended left out; one that could not be carried out is not ready."""
    found = Findings("notes", mapped=True)
    for number, fixed in enumerate((None, True, False)):
        found.add(Difference("notes", str(number), "stale", "another text", fixed), 20)
    async with open_watch(load(Environment({}), STAGES)) as (watch, url):
        try:
            assert (await _get(f"{url}/readyz"))[0] == 200
            watch.done([found])
            _, metrics = await _get(f"{url}/metrics")
            _, ready = await _get(f"{url}/readyz")
            watch.failed("the index is away")
            status, failed = await _get(f"{url}/readyz")
        finally:
            REGISTRY.unregister(watch._metrics.differences)
            REGISTRY.unregister(watch._metrics.at)
    assert 'pipeline_index_audit_differences{kind="stale",source="notes"} 2.0' in metrics
    assert 'pipeline_index_audit_differences{kind="torn",source="notes"} 0.0' in metrics
    assert "pipeline_index_audit_timestamp_seconds 1." in metrics
    assert "2 differences" in ready
    assert (status, "the index is away" in failed) == (503, True)

"""Thousands of runs would drown whatever they have to say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from pipeline.telemetry import logs


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logs.configure(level="CRITICAL")
    yield
    structlog.reset_defaults()

"""Thousands of runs would drown whatever they have to say."""

from __future__ import annotations

import pytest

from pipeline.telemetry import logs


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logs.configure(level="CRITICAL")

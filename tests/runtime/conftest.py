"""Fixtures of the runtime's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import structlog

from pipeline.runtime import runner


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log to what a test captures: no debug lines, nothing printed."""

    def drop(*_: Any) -> NoReturn:
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[drop], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


@pytest.fixture
def slow_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an idle runner look less often, so that minutes and hours of waiting pass quickly."""
    monkeypatch.setattr(runner, "FETCH_SECONDS", 5.0)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an idle runner look twice a second, not ten times: for tests in which seconds and minutes pass."""
    monkeypatch.setattr(runner, "FETCH_SECONDS", 0.5)

"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.command import Prepared, prepared


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """What runs the program without importing it each time."""
    with prepared(tmp_path_factory.mktemp("prepared")) as commands:
        yield commands

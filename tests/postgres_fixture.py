"""A real PostgreSQL for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.devkit.postgres import Postgres, PostgresConfig, postgres
from pipeline.devkit.postgres_programs import PostgresMissing


def run_postgres(folder: Path) -> Iterator[Postgres]:
    """Run a server until the generator ends. Where the machine lacks it tests are skipped; in CI that is an error."""
    with asyncio.Runner() as runner:
        opened = postgres(PostgresConfig(folder))
        try:
            server = runner.run(opened.__aenter__())
        except PostgresMissing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield server
        runner.run(opened.__aexit__(None, None, None))

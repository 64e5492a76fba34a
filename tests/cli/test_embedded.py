"""Tests of pipeline/cli/embedded.py: what the demo leaves out. The rest of it is proved at work."""

from __future__ import annotations

from pipeline import wiring
from pipeline.cli.embedded import _own_receiver
from pipeline.settings import Environment, load


def test_the_demo_reads_no_tables_of_the_user() -> None:
    """Its broker is its own, and no connector ever writes there: it would wait for their topics for ever."""
    environ = {"PIPELINE_TABLES": "tables.yaml", "PIPELINE_TABLES_FILE": "path", "OTHER": "kept"}
    inner = _own_receiver(load(Environment(environ), wiring.STAGES))
    assert inner.settings.tables is None
    assert inner.environment.environ == {"OTHER": "kept"}

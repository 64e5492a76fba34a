"""`pipeline explain` and `pipeline tail` where what a person gives cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import main  # noqa: F401  # the verbs register themselves
from pipeline.cli.app import app


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["explain", "x", "--since", "soon"], "--since 'soon' is no time"),
        (["tail", "--for", "soon"], "--for 'soon' is no span of time"),
        (["tail", "infur"], "'infur' is neither a stage nor a topic of the pipeline: there are preprocess,"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a broker, and with exit code 2."""
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())

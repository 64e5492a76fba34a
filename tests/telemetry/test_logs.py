"""Log lines as this process writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
import structlog

from pipeline.telemetry import logs


class Names:
    """A context that counts how often it was asked."""

    def __init__(self, **said: str) -> None:
        self.asked = 0
        self._said = said

    def said(self) -> Mapping[str, str]:
        self.asked += 1
        return self._said


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave structlog as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_what_is_lent_stands_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The names of a context are in the lines written meanwhile, under what these say themselves."""
    logs.configure("json")
    token = logs.lend(Names(job="j", stage="infer"))
    logs.get(stage="other").warning("during", action="test")
    logs.take_back(token)
    logs.get().warning("after", action="test")
    during, after = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert ("j", "other", "test", "during") == (during["job"], during["stage"], during["action"], during["event"])
    assert {"event", "action", "level", "timestamp"} == set(after)


def test_the_console_has_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A person at a terminal reads the same names."""
    logs.configure("console", color=False)
    token = logs.lend(Names(job="job-7"))
    logs.get().info("during")
    logs.take_back(token)
    assert "job=job-7" in capsys.readouterr().err


def test_what_nobody_writes_is_not_spelt() -> None:
    """A context is asked for its names once for each line written, and for none that its level drops."""
    logs.configure("json", "ERROR")
    names = Names(job="j")
    token = logs.lend(names)
    logs.get().info("dropped")
    logs.take_back(token)
    assert 0 == names.asked


def test_the_inner_context_counts() -> None:
    """Lending twice and taking back twice ends where it began."""
    outer, inner = Names(job="outer"), Names(job="inner")
    first = logs.lend(outer)
    second = logs.lend(inner)
    assert {"job": "inner"} == logs.merge_lent(None, "info", {})
    logs.take_back(second)
    assert {"job": "outer"} == logs.merge_lent(None, "info", {})
    logs.take_back(first)
    assert {} == logs.merge_lent(None, "info", {})


@pytest.mark.parametrize("level, told", [("DEBUG", True), ("INFO", False)])
def test_whether_somebody_debugs_is_known(level: str, told: bool) -> None:
    """As configured last."""
    logs.configure("json", level)
    assert told == logs.debugging()

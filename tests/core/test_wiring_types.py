"""A stage wired to the wrong topic is a mypy error on its line, and on no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SNIPPET = """
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from pipeline.core.event import Event
from pipeline.core.payloads import Completion, Delivery, Failure, Payload, Prompt, Request, Result
from pipeline.core.stage import Context, Stage, Topic, joined, sink, stage

REQUESTS = Topic("requests", Request, open_topic=True)
PROMPTS = Topic("prompts", Prompt)
COMPLETIONS = Topic("completions", Completion)
RESULTS = Topic("results", Result)
FAILURES = Topic("failures", Failure)
DELIVERIES = Topic("deliveries", Delivery)


@dataclass(frozen=True)
class Preprocess:
    depth: int = 1

    async def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt]:
        return ()


class Anything:
    async def __call__(self, event: Event[Payload], ctx: Context) -> list[Prompt]:
        return []


class Either:
    async def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt | Result]:
        return ()


class Notify:
    async def __call__(self, event: Event[Result | Failure], ctx: Context) -> Sequence[Delivery]:
        return ()


class OfResults:
    async def __call__(self, event: Event[Result], ctx: Context) -> Sequence[Delivery]:
        return ()


class Sink:
    async def __call__(self, event: Event[Payload], ctx: Context) -> Sequence[Never]:
        return ()


class Blocking:
    def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt]:
        return ()


RIGHT = (
    stage("a", REQUESTS, PROMPTS, Preprocess),
    stage("b", REQUESTS, PROMPTS, Preprocess, concurrency=8, timeout=600, enforce_deadline=True),
    stage("c", REQUESTS, PROMPTS, Anything),
    stage("d", COMPLETIONS, PROMPTS, Anything),
    joined("e", (RESULTS, FAILURES), DELIVERIES, Notify),
    joined("f", (FAILURES, RESULTS), DELIVERIES, Notify),
    stage("g", RESULTS, DELIVERIES, Notify),
    sink("h", REQUESTS, Sink),
)
WRONG = (
    stage("a", PROMPTS, PROMPTS, Preprocess),  # wrong: source
    stage("b", REQUESTS, RESULTS, Preprocess),  # wrong: output
    stage("c", PROMPTS, REQUESTS, Preprocess),  # wrong: the other way round
    stage("d", REQUESTS, PROMPTS, Either),  # wrong: one of its outputs has no topic
    stage("e", REQUESTS, PROMPTS, Blocking),  # wrong: not async
    stage("f", REQUESTS, PROMPTS, Preprocess, concurency=8),  # wrong: no such policy
    stage("g", REQUESTS, PROMPTS, Preprocess, timeout="60"),  # wrong: no number
    stage("h", REQUESTS, PROMPTS, Preprocess()),  # wrong: built already, that is for wiring
    joined("i", (RESULTS, FAILURES), DELIVERIES, OfResults),  # wrong: reads one of the two
    joined("j", (RESULTS, PROMPTS), DELIVERIES, Notify),  # wrong: second source
    joined("k", (RESULTS, FAILURES), PROMPTS, Notify),  # wrong: output
    sink("l", RESULTS, Preprocess),  # wrong: source
)
WIDE: Topic[Payload] = REQUESTS  # wrong: a topic is invariant
EVERY: tuple[Stage, ...] = (*RIGHT, *WRONG)
"""


def test_a_stage_on_the_wrong_topic_is_an_error_on_its_line(tmp_path: Path) -> None:
    """Source, output, policy and kind of handler are all checked at once, and right declarations pass."""
    file = tmp_path / "wiring_types.py"
    file.write_text(SNIPPET, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".cache" / "mypy-snippets"), "--no-error-summary", str(file)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wrong = {number for number, line in enumerate(SNIPPET.splitlines(), 1) if "# wrong" in line}
    found = {int(number) for number in re.findall(r"wiring_types\.py:(\d+): error:", told.stdout)}
    assert wrong == found, told.stdout + told.stderr

"""What the tests of the stages are made of: a catalog, events and contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.core.catalog import Catalog, parse_catalog
from pipeline.core.event import Event
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.payloads import Completion, Passage, Payload
from pipeline.core.record import Position
from pipeline.core.stage import Context
from pipeline.core.trace import root

P = TypeVar("P", bound=Payload)

NOW = 1_800_000_000.0
NOW_MS = int(NOW * 1000)

USER = (
    "<passages>\n{% for p in passages %}\n"
    '<passage n="{{ loop.index }}" document="{{ p.document }}" chunk="{{ p.chunk }}" version="{{ p.version }}">\n'
    "{{ p.text }}\n</passage>\n{% endfor %}\n</passages>\n<question>\n{{ input }}\n</question>\n"
)


def catalog(top: dict[str, Any] | None = None, **kind: Any) -> Catalog:
    """Make a catalog with the type `quick`, changed by `kind`, and with `top` at its top level."""
    quick = {"model": "small", "template": "answer", "max_output_tokens": 100, "endpoint": "default"} | kind
    data: dict[str, Any] = {
        "default_endpoint": "default",
        "models": {"small": {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0, "context_tokens": 2_000}},
        "templates": {"answer": {"system": "Answer only from the passages.", "user": USER}},
        "endpoints": {
            name: {"url": f"https://example.com/{name}", "secret_env": "SECRET"} for name in ("default", "crm", "audit")
        },
        "types": {"quick": quick, "other": quick},
    }
    return parse_catalog(data | (top or {}), "test")


def event(payload: P, **job: Any) -> Event[P]:
    """Make the event of a payload, with the job's fields changed by `job`."""
    fields: dict[str, Any] = {"id": "job-1", "tenant": "acme", "type": "quick", "accepted_at_ms": NOW_MS} | job
    return Event(
        id="event-1",
        job=Job(**fields),
        payload=payload,
        key=b"key",
        trace=root("job-1"),
        origin=Origin(Position("topic", 0, 7), NOW_MS),
        tries=Tries(),
    )


def context(
    *,
    now: float = NOW,
    attempt: int = 1,
    deadline: float | None = None,
    emit: Callable[[Payload], None] = lambda _: None,
) -> Context:
    """Make the context of a try."""
    return Context("event-1", attempt, deadline, lambda: now, emit=emit)


def passage(text: str = "The shop opens at nine.", **fields: Any) -> Passage:
    """Make a passage."""
    given: dict[str, Any] = {
        "source": "handbook",
        "document": "shop",
        "chunk": 0,
        "version": 3,
        "score": 1.0,
        "title": "Hours",
    }
    return Passage(**(given | {"text": text} | fields))


def completion(text: str = "At nine [1].", **fields: Any) -> Completion:
    """Make a model's answer."""
    given: dict[str, Any] = {
        "input": "When?",
        "passages": (passage(), passage("It closes at six.", document="closing", chunk=2)),
        "model": "small-2024",
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "latency_ms": 900,
        "cost_usd": 0.00004,
        "endpoint": "crm",
        "metadata": {"ticket": "7"},
    }
    return Completion(**(given | fields))

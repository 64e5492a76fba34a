"""What a webhook says: the body of `job.completed` and `job.failed`, in the form of Standard Webhooks.

    {"type": "job.completed", "timestamp": "<RFC 3339>", "data": {"job_id": ..., ...}}

The same event always gives the same bytes: a receiver may compare, and a retry signs what was signed before.

An endpoint chooses between two versions of `data`. Version 1 is whole: the answer, its citations and what it took, as
large as they are. Version 2 is thin: how the job ended, how large its answer is and the hash of that, never more than
`THIN_BYTES` in all. It is for receivers that put what they get on a queue or take no large bodies, and read the answer
elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from pipeline.core.event import Event
from pipeline.core.payloads import Citation, Failure, Payload, Result

WHOLE, THIN = 1, 2
"""The versions of a body."""

THIN_BYTES = 20_000
"""The most bytes of a thin body (Standard Webhooks, section on payload size: under 20 kB)."""

_NAME, _REASON = 200, 1_000
"""How much of a name and of a reason a thin body repeats, in characters."""


def completed(event: Event[Payload], result: Result, version: int = WHOLE) -> bytes:
    """Say that a job has its answer. `data.data` is the answer as JSON where the job's type has a schema, else null."""
    at_ms = event.origin.timestamp_ms
    if version == THIN:
        answer = result.answer.encode("utf-8", "replace")
        told = {
            "answer_bytes": len(answer),
            "answer_sha256": hashlib.sha256(answer).hexdigest(),
            "structured": result.data is not None,
            "citations": len(result.citations),
            "truncated": result.truncated,
        }
        return _thin("job.completed", at_ms, event, told, result.metadata)
    return _message(
        "job.completed",
        at_ms,
        _job(event)
        | {
            "metadata": result.metadata,
            "answer": result.answer,
            "data": None if result.data is None else json.loads(result.data),
            "citations": [_citation(citation) for citation in result.citations],
            "truncated": result.truncated,
            "model": result.model,
            "finish_reason": result.finish_reason,
            "usage": {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens},
            "cost_usd": result.cost_usd,
            "latency_ms": result.latency_ms,
        },
    )


def failed(event: Event[Payload], failure: Failure, version: int = WHOLE) -> bytes:
    """Say that a job ended without an answer, or (`recoverable`) waits for a person. `cost_usd` was paid anyway."""
    told: dict[str, Any] = {
        "code": failure.code,
        "reason": failure.reason,
        "stage": failure.stage,
        "recoverable": failure.recoverable,
    }
    if version == THIN:
        cut = {"code": failure.code[:_NAME], "reason": failure.reason[:_REASON], "stage": failure.stage[:_NAME]}
        return _thin("job.failed", failure.failed_at_ms, event, told | cut, failure.metadata)
    data = _job(event) | {"metadata": failure.metadata} | told | {"cost_usd": event.job.cost_usd}
    return _message("job.failed", failure.failed_at_ms, data)


def trial(endpoint: str, at_ms: int) -> bytes:
    """Say nothing but that this is a test, by which a person finds out whether an endpoint hears us."""
    return _message("endpoint.test", at_ms, {"endpoint": endpoint})


def _thin(kind: str, at_ms: int, event: Event[Payload], told: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """Say how a job ended. Metadata that would make it too large is null, and `omitted` names it."""
    job = {name: value[:_NAME] if isinstance(value, str) else value for name, value in _job(event).items()}
    status = {"status": kind.removeprefix("job.")}
    data = job | status | told | {"cost_usd": event.job.cost_usd, "metadata": metadata, "omitted": []}
    body = _message(kind, at_ms, data)
    if len(body) <= THIN_BYTES:
        return body
    return _message(kind, at_ms, data | {"metadata": None, "omitted": ["metadata"]})


def _job(event: Event[Payload]) -> dict[str, Any]:
    job = event.job
    return {
        "job_id": job.id,
        "run": job.run,
        "tenant": job.tenant,
        "type": job.type,
        "conversation": job.conversation or None,
    }


def _citation(citation: Citation) -> dict[str, Any]:
    return citation.model_dump()


def _message(kind: str, at_ms: int, data: dict[str, Any]) -> bytes:
    at = datetime.fromtimestamp(max(at_ms, 0) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return to_json({"type": kind, "timestamp": at, "data": data})

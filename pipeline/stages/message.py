"""What a webhook says: the body of `job.completed` and `job.failed`, in the form of Standard Webhooks.

    {"type": "job.completed", "timestamp": "<RFC 3339>", "data": {"job_id": ..., ...}}

The same event always gives the same bytes: a receiver may compare, and a retry signs what was signed before.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pipeline.core.event import Event
from pipeline.core.payloads import Citation, Failure, Payload, Result


def completed(event: Event[Payload], result: Result) -> bytes:
    """Say that a job has its answer. `data.data` is the answer as JSON where the job's type has a schema, else null."""
    return _message(
        "job.completed",
        event.origin.timestamp_ms,
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


def failed(event: Event[Payload], failure: Failure) -> bytes:
    """Say that a job ended without an answer, or (`recoverable`) waits for a person. `cost_usd` was paid anyway."""
    return _message(
        "job.failed",
        failure.failed_at_ms,
        _job(event)
        | {
            "metadata": failure.metadata,
            "code": failure.code,
            "reason": failure.reason,
            "stage": failure.stage,
            "recoverable": failure.recoverable,
            "cost_usd": event.job.cost_usd,
        },
    )


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
    return json.dumps({"type": kind, "timestamp": at, "data": data}, ensure_ascii=False).encode()

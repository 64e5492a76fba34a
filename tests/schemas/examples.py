"""Payloads to show every noun by: one with all fields set, one with only the needed ones."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.payloads import (
    Audit,
    Citation,
    Completion,
    Control,
    Delivery,
    Document,
    Failure,
    Letter,
    Message,
    Passage,
    Payload,
    Prompt,
    Request,
    Result,
    RetrievedContext,
)
from pipeline.wire.schemas import load_schemas

DIRECTORY = Path(__file__).parents[2] / "schemas"
SCHEMAS = load_schemas(DIRECTORY)

NOUNS: dict[str, type[Payload]] = {
    "requests": Request,
    "prompts": Prompt,
    "contexts": RetrievedContext,
    "completions": Completion,
    "results": Result,
    "failures": Failure,
    "deliveries": Delivery,
    "documents": Document,
    "control": Control,
    "messages": Message,
    "letters": Letter,
    "audit": Audit,
}
"""The payload that each noun carries."""

_PASSAGES = (
    Passage(source="docs", document="d-7", chunk=0, version=3, score=12.5, title="Müller & Söhne", text="Öffnet um 9."),
    Passage(source="docs", document="d-8", chunk=4, version=1, score=-0.25, title="", text="日本語 🚚"),
)
_LABELS = {"ticket": "4711", "": "empty name", "naïve": ""}

FULL: dict[str, Payload] = {
    "requests": Request(
        type="quick_answer",
        input="When does the shop open?\n¿Y cuándo cierra? 🕘",
        id="r-1",
        tenant="acme",
        key="conversation-9",
        lane="interactive",
        deadline_ms=30_000,
        conversation="conversation-9",
        filters={"language": "de"},
        as_fresh_as={"docs": 2**62, "": -1},
        endpoint="crm",
        metadata=_LABELS,
    ),
    "prompts": Prompt(
        type="quick_answer",
        input="When does the shop open?",
        input_tokens=9,
        lane="batch",
        deadline_ms=1_800_000_030_000,
        catalog="sha256:0123",
        conversation="conversation-9",
        filters={"language": "de"},
        as_fresh_as={"docs": 2**62, "": -1},
        endpoint="crm",
        metadata=_LABELS,
    ),
    "contexts": RetrievedContext(input="When?", passages=_PASSAGES, endpoint="crm", metadata=_LABELS),
    "completions": Completion(
        input="When?",
        passages=_PASSAGES,
        model="gpt-4o-mini",
        text="At nine [1].",
        refusal="I would rather not.",
        finish_reason="stop",
        prompt_tokens=321,
        completion_tokens=7,
        usage_estimated=True,
        request_id="req_1",
        latency_ms=1234,
        cost_usd=0.000123,
        endpoint="crm",
        metadata=_LABELS,
    ),
    "results": Result(
        answer="At nine [1].",
        data='{"opens": "09:00"}',
        citations=(Citation(number=1, source="docs", document="d-7", chunk=0, version=3, title="Müller & Söhne"),),
        truncated=True,
        model="gpt-4o-mini",
        finish_reason="length",
        prompt_tokens=321,
        completion_tokens=7,
        cost_usd=0.000123,
        latency_ms=1234,
        endpoint="crm",
        metadata=_LABELS,
    ),
    "failures": Failure(
        stage="infer",
        code="content_filter",
        reason="The provider refused the content.",
        recoverable=True,
        failed_at_ms=1_800_000_000_123,
        endpoint="crm",
        metadata=_LABELS,
    ),
    "deliveries": Delivery(
        webhook_id="msg_1",
        kind="job.failed",
        outcome="undeliverable",
        reason="The receiver answered 410.",
        status=410,
        attempts=3,
        finished_at_ms=1_800_000_000_456,
        endpoint="crm",
        metadata=_LABELS,
        code="gone",
        duration_ms=17,
        request_bytes=4_711,
        response_bytes=12,
    ),
    "documents": Document(
        source="docs",
        id="d-7",
        tenant="acme",
        title="Müller & Söhne",
        body="Öffnet um 9.",
        version=2**62,
        deleted=True,
        fields=_LABELS,
        committed_at_ms=1_800_000_000_000,
        body_kept=True,
        former="d-6",
        emptied=True,
    ),
    "control": Control(
        state="cancelled",
        stage="infer",
        type="quick_answer",
        tenant="acme",
        model="gpt-4o-mini",
        job="5a0c6d0e-7f0b-5c55-9d0c-0f6f6a1f6e51",
        reason="The customer has withdrawn it.",
        operator="müller",
        at_ms=1_800_000_000_123,
        expires_at_ms=1_800_600_000_123,
        endpoint="crm",
    ),
    "messages": Message(
        webhook_id="msg_1", kind="job.failed", body='{"type": "job.failed"} 🚚', endpoint="crm", metadata=_LABELS
    ),
    "letters": Letter(
        state="assigned",
        topic="pipeline.infer.dlq",
        partition=11,
        offset=2**40,
        job="5a0c6d0e-7f0b-5c55-9d0c-0f6f6a1f6e51",
        operator="müller",
        reason="Hers to mend.",
        at_ms=1_800_000_000_123,
        assignee="ann",
        replay="r-1",
        replays=2,
        run=3,
    ),
    "audit": Audit(
        action="letter.assigned",
        subject="5a0c6d0e-7f0b-5c55-9d0c-0f6f6a1f6e51",
        operator="müller",
        reason="Hers to mend.",
        at_ms=1_800_000_000_123,
        details=_LABELS,
    ),
}
"""Every field has a value other than its default."""

LEAST: dict[str, Payload] = {
    "requests": Request(type="quick_answer", input="When?"),
    "prompts": Prompt(
        type="quick_answer", input="When?", input_tokens=2, lane="standard", deadline_ms=1_800_000_030_000, catalog="1"
    ),
    "contexts": RetrievedContext(input="When?"),
    "completions": Completion(
        input="When?",
        model="m",
        text="",
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0,
        cost_usd=0.0,
    ),
    "results": Result(
        answer="", model="m", finish_reason="stop", prompt_tokens=0, completion_tokens=0, cost_usd=0.0, latency_ms=0
    ),
    "failures": Failure(stage="preprocess", code="too_long", reason="The input is too long.", failed_at_ms=0),
    "deliveries": Delivery(webhook_id="msg_2", kind="job.completed", outcome="delivered", finished_at_ms=0),
    "documents": Document(source="docs", id="", tenant="acme", title="", body="", version=-1),
    "control": Control(state="paused", at_ms=0),
    "messages": Message(webhook_id="msg_2", kind="job.completed", body=""),
    "letters": Letter(state="resolved", at_ms=0),
    "audit": Audit(action="paused", at_ms=0),
}
"""Every field that has a default is left at it."""

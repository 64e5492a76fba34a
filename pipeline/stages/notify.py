"""notify: the outcome of a job goes to its webhook, as a Standard Webhooks message.

The message's id is the event's id, the same over all retries, so that a receiver can drop what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Defer, Fail
from pipeline.core.event import Event
from pipeline.core.payloads import Delivery, Failure, Message, Result
from pipeline.core.ports import WebhookMessage, WebhookSender
from pipeline.core.stage import Context
from pipeline.stages.bounds import short
from pipeline.stages.message import completed, failed

UNHEARD = frozenset({"notify", "deliver", "index"})
"""Stages whose failures go to no webhook: a lost webhook would be announced by another, and a document has no job."""

_Outcome = Literal["delivered", "undeliverable", "suppressed"]


@dataclass(frozen=True)
class Notify:
    """Posts results as `job.completed` and failures as `job.failed`, and tells what became of each message."""

    catalog: Catalog
    webhooks: WebhookSender

    async def __call__(self, event: Event[Result | Failure], ctx: Context) -> Sequence[Delivery | Message]:
        """Return the one delivery. Raises Retry and Defer of the sender, and Defer until a failure's grace is over."""
        payload, kind = event.payload, self.catalog.types.get(event.job.type)
        endpoint, note = choose_endpoint(self.catalog, kind, payload.endpoint)
        if isinstance(payload, Failure):
            silent = why_silent(payload, kind, ctx.now())
            if silent:
                return [report(event, ctx, endpoint, "suppressed", silent)]
            body = failed(event, payload)
        else:
            body = completed(event, payload)
        try:
            answer = await self.webhooks.post(WebhookMessage(endpoint, event.id, body))
            if answer.refusal is not None:
                raise answer.refusal
        except Fail as refused:
            # An endpoint that is gone stays gone: the job is over, and a failure event would only come back here.
            return [report(event, ctx, endpoint, "undeliverable", "; ".join(filter(None, (refused.reason, note))))]
        return [report(event, ctx, endpoint, "delivered", note, answer.status)]


def choose_endpoint(catalog: Catalog, kind: EventType | None, wanted: str | None) -> tuple[str, str]:
    """Return the endpoint's name and a note where it is not the one that was wanted.

    Only what the job's type offers can be chosen: a refused request comes by here too, and must not reach the endpoint
    for which it was refused. A job without a known type goes to the catalog's default.
    """
    usual = kind.endpoint if kind else catalog.default_endpoint
    offered = (usual, *kind.endpoints) if kind else (usual,)
    if wanted is None or wanted in offered:
        return wanted or usual, ""
    return usual, f"there is no endpoint {short(wanted)} for this job, so {usual!r} was used"


def why_silent(failure: Failure, kind: EventType | None, now: float) -> str:
    """Say why nobody is to hear of a failure; empty where somebody is.

    Raises Defer for a recoverable one within its grace: a replay in the meantime makes a result of it.
    """
    if failure.stage in UNHEARD:
        return f"failures of {failure.stage} go to no webhook"
    if not failure.recoverable or kind is None:
        return ""
    if kind.on_dead_letter == "silent":
        return "the job's type keeps silent about dead letters"
    due = failure.failed_at_ms / 1000 + kind.dead_letter_grace_seconds
    if now < due:
        raise Defer("a person has time to repair this before its owner hears of it", until=due, code="grace")
    return ""


def report(
    event: Event[Result | Failure],
    ctx: Context,
    endpoint: str,
    outcome: _Outcome,
    reason: str,
    status: int | None = None,
) -> Delivery:
    """Tell what became of a message."""
    return Delivery(
        endpoint=endpoint,
        metadata=event.payload.metadata,
        webhook_id=event.id,
        kind="job.completed" if isinstance(event.payload, Result) else "job.failed",
        outcome=outcome,
        reason=reason,
        status=status,
        attempts=ctx.attempt,
        finished_at_ms=int(ctx.now() * 1000),
    )

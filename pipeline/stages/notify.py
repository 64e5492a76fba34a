"""notify: the outcome of a job goes to its webhook, as a Standard Webhooks message.

The message's id is the event's id, the same over all retries, so that a receiver can drop what it has seen. For an
endpoint that asks for order the message goes to `deliver` instead, which posts those of one key one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Defer
from pipeline.core.event import Event
from pipeline.core.payloads import Delivery, Failure, Message, Result
from pipeline.core.ports import EndpointBook, WebhookSender
from pipeline.core.stage import Context
from pipeline.stages.message import completed, failed
from pipeline.stages.post import Courier, Kind, Posting, choose_target, report

UNHEARD = frozenset({"notify", "deliver", "index"})
"""Stages whose failures go to no webhook: a lost webhook would be announced by another, and a document has no job."""

SILENT, NOT_WANTED = "silent", "not_wanted"
"""The codes of messages that are not sent: nobody is to hear of it, or this endpoint does not ask for its kind."""


@dataclass(frozen=True)
class Notify:
    """Posts results as `job.completed` and failures as `job.failed`, and tells what became of each message."""

    catalog: Catalog
    webhooks: WebhookSender
    book: EndpointBook

    async def __call__(self, event: Event[Result | Failure], ctx: Context) -> Sequence[Delivery | Message]:
        """Return the one delivery, or the message for `deliver`.

        Raises Retry and Defer as the endpoint answers, and Defer until a failure's grace is over.
        """
        payload, kind = event.payload, self.catalog.types.get(event.job.type)
        target = choose_target(self.catalog, kind, event.job.tenant, payload.endpoint)
        endpoint = self.catalog.endpoints[target.endpoint]
        what: Kind = "job.completed" if isinstance(payload, Result) else "job.failed"
        posting = Posting(target, event.id, what, b"", payload.metadata)
        if what not in endpoint.events:
            reason = f"the endpoint {target.endpoint!r} does not ask for {what}"
            return [report(posting, ctx, "suppressed", reason, code=NOT_WANTED)]
        if isinstance(payload, Failure):
            silent = why_silent(payload, kind, ctx.now())
            if silent:
                return [report(posting, ctx, "suppressed", silent, code=SILENT)]
            body = failed(event, payload, endpoint.body_version)
        else:
            body = completed(event, payload, endpoint.body_version)
        if endpoint.ordered:
            return [
                Message(
                    endpoint=target.url or target.endpoint,
                    metadata=payload.metadata,
                    webhook_id=event.id,
                    kind=what,
                    body=body.decode(),
                )
            ]
        return [await Courier(self.webhooks, self.book).attempt(replace(posting, body=body), ctx)]


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

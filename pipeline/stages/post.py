"""One attempt at one webhook, as `notify` and `deliver` make it: posted, told of in the delivery log, and heard by the
endpoint's book.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.endpoints import ENDPOINT_DISABLED, LAST_ATTEMPT, Heard, host_of, may_reach
from pipeline.core.errors import Fail, Retry
from pipeline.core.payloads import Delivery
from pipeline.core.ports import EndpointBook, WebhookAnswer, WebhookMessage, WebhookSender
from pipeline.core.stage import Context
from pipeline.stages.bounds import short

Kind = Literal["job.completed", "job.failed"]

GONE = "gone"
"""The code of the refusal of an endpoint that wants nothing any more."""

TOO_MANY = 429
"""The status by which an endpoint says that it is well, but not so fast."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes: an endpoint's name; the `url` where a request brought its own; a note for the log."""

    endpoint: str
    url: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Posting:
    """A message on its way. `id` is the webhook's id, the same over all attempts; `body` is what is signed."""

    target: Target
    id: str
    kind: Kind
    body: bytes
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Courier:
    """Makes attempts. `webhooks` posts, `book` keeps what is known of the endpoints."""

    webhooks: WebhookSender
    book: EndpointBook

    async def attempt(self, posting: Posting, ctx: Context) -> Delivery:
        """Post once, and return how it ended where that is the end: delivered, or undeliverable.

        Raises what the sender raises where no attempt was made (not this endpoint's turn), and after an attempt that
        may work next time Retry or Defer, once the attempt has been told of.
        """
        state = self.book.state(posting.target.endpoint)
        if not state.open:
            by = f" by {state.by}" if state.by else ""
            reason = f"the endpoint was disabled{by}: {state.why}" if state.why else f"the endpoint was disabled{by}"
            return report(posting, ctx, "undeliverable", reason, code=ENDPOINT_DISABLED)
        begun = ctx.now()
        try:
            answer = await self.webhooks.post(
                WebhookMessage(posting.target.endpoint, posting.id, posting.body, posting.target.url)
            )
        except Fail as refused:
            # An endpoint that is not there, or may not be reached: the job is over, and a failure event would only
            # come back here.
            return report(posting, ctx, "undeliverable", refused.reason, code=refused.code)
        await self._hear(posting.target, answer, ctx.now())
        return _ended(posting, answer, ctx, begun)

    async def _hear(self, target: Target, answer: WebhookAnswer, now: float) -> None:
        # Of what requests bring, each is another address: none of them speaks for the endpoint that lends its secret.
        if target.url is None and answer.status != TOO_MANY:
            refusal = answer.refusal
            heard = Heard(ok=True) if refusal is None else Heard(False, refusal.reason, refusal.code == GONE)
            await self.book.heard(target.endpoint, heard, now)


def choose_target(catalog: Catalog, kind: EventType | None, tenant: str, wanted: str | None) -> Target:
    """Return where a job's outcome goes, with a note where that is not what was wanted.

    Only what the job's type offers can be chosen, or a URL whose host its tenant may bring: a refused request comes by
    here too, and must not reach the endpoint for which it was refused. A job without a known type goes to the
    catalog's default.
    """
    usual = kind.endpoint if kind else catalog.default_endpoint
    offered = (usual, *kind.endpoints) if kind else (usual,)
    if wanted is None or wanted in offered:
        return Target(wanted or usual)
    own = brought(catalog, tenant, wanted) if kind else None
    return own or Target(usual, note=f"there is no endpoint {short(wanted)} for this job, so {usual!r} was used")


def named_target(catalog: Catalog, tenant: str, name: str) -> Target | None:
    """Find again what `choose_target` has chosen: an endpoint's name, or a URL; None where that may not be used now."""
    return brought(catalog, tenant, name) if host_of(name) else Target(name)


def brought(catalog: Catalog, tenant: str, wanted: str) -> Target | None:
    """Return where a URL of a request leads, and whose secret signs for it; None where its tenant may not bring it."""
    rules = (catalog.tenants or {}).get(tenant)
    host = host_of(wanted)
    if rules is None or rules.webhook_endpoint is None or not host or not may_reach(host, rules.webhook_hosts):
        return None
    return Target(rules.webhook_endpoint, wanted, f"to {host}, which the request brought")


def report(
    posting: Posting,
    ctx: Context,
    outcome: Literal["delivered", "failed", "undeliverable", "suppressed"],
    reason: str = "",
    *,
    code: str = "",
    figures: Mapping[str, Any] = MappingProxyType({}),
) -> Delivery:
    """Tell what became of a message, with the `figures` of the attempt where one was made."""
    return Delivery(
        endpoint=posting.target.endpoint,
        metadata=dict(posting.metadata),
        webhook_id=posting.id,
        kind=posting.kind,
        outcome=outcome,
        reason="; ".join(filter(None, (reason, posting.target.note))),
        code=code,
        attempts=ctx.attempt,
        finished_at_ms=int(ctx.now() * 1000),
        **figures,
    )


def _ended(posting: Posting, answer: WebhookAnswer, ctx: Context, begun: float) -> Delivery:
    """Tell of an attempt. One that is not the end is emitted, and its refusal raised."""
    refusal = answer.refusal
    figures = {
        "status": answer.status,
        "duration_ms": max(0, round((ctx.now() - begun) * 1000)),
        "request_bytes": len(posting.body),
        "response_bytes": answer.response_bytes,
    }
    if refusal is None:
        return report(posting, ctx, "delivered", figures=figures)
    if isinstance(refusal, Fail):
        return report(posting, ctx, "undeliverable", refusal.reason, code=refusal.code, figures=figures)
    if isinstance(refusal, Retry) and ctx.attempt >= LAST_ATTEMPT:
        reason = f"{refusal.reason}; that was the last of {LAST_ATTEMPT} attempts: the message is a dead letter now"
        ctx.emit(report(posting, ctx, "undeliverable", reason, code=refusal.code, figures=figures))
    else:
        ctx.emit(report(posting, ctx, "failed", refusal.reason, code=refusal.code, figures=figures))
    raise refusal

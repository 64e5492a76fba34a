"""deliver: posts the webhooks of endpoints that ask for order, of each key one after the other.

`notify` has chosen the endpoint and written the body. A message that fails is tried again in its place, so its key
waits with it; a stage of its own keeps that wait from everybody else's webhooks. A message that is given up (its
endpoint is gone or disabled, its schedule used up) lets the next one of its key go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.catalog import Catalog
from pipeline.core.event import Event
from pipeline.core.payloads import Delivery, Message
from pipeline.core.ports import EndpointBook, WebhookSender
from pipeline.core.stage import Context
from pipeline.stages.post import Courier, Posting, Target, named_target, report


@dataclass(frozen=True)
class Deliver:
    """Posts messages as they are, and tells what became of each."""

    catalog: Catalog
    webhooks: WebhookSender
    book: EndpointBook

    async def __call__(self, event: Event[Message], ctx: Context) -> Sequence[Delivery]:
        """Return the one delivery. Raises Retry and Defer as the endpoint answers."""
        message = event.payload
        target = named_target(self.catalog, event.job.tenant, message.endpoint or "")
        posting = Posting(
            target or Target(""), message.webhook_id, message.kind, message.body.encode(), message.metadata
        )
        if target is None:
            reason = "its URL, which the request brought, is not on its tenant's list any more"
            return [report(posting, ctx, "undeliverable", reason, code="forbidden_address")]
        return [await Courier(self.webhooks, self.book).attempt(posting, ctx)]

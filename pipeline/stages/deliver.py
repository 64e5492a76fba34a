"""deliver: posts the webhooks of endpoints that ask for order, of each key one after the other.

`notify` has chosen the endpoint and written the body. A message that fails is tried again in its place, so its key
waits with it; a stage of its own keeps that wait from everybody else's webhooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.errors import Fail
from pipeline.core.event import Event
from pipeline.core.payloads import Delivery, Message
from pipeline.core.ports import WebhookMessage, WebhookSender
from pipeline.core.stage import Context


@dataclass(frozen=True)
class Deliver:
    """Posts messages as they are, and tells what became of each."""

    webhooks: WebhookSender

    async def __call__(self, event: Event[Message], ctx: Context) -> Sequence[Delivery]:
        """Return the one delivery. Raises Retry and Defer of the sender."""
        message = event.payload
        reason, status = "", None
        try:
            sent = WebhookMessage(message.endpoint or "", message.webhook_id, message.body.encode())
            answer = await self.webhooks.post(sent)
            if answer.refusal is not None:
                raise answer.refusal
            status = answer.status
        except Fail as refused:
            reason = refused.reason
        return [
            Delivery(
                endpoint=message.endpoint,
                metadata=message.metadata,
                webhook_id=message.webhook_id,
                kind=message.kind,
                outcome="undeliverable" if status is None else "delivered",
                reason=reason,
                status=status,
                attempts=ctx.attempt,
                finished_at_ms=int(ctx.now() * 1000),
            )
        ]

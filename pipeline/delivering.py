"""What the verbs `endpoints` and `deliveries` are made of: the catalog, the control topic, the log, and the sender."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from pipeline.broker.kafka_reader import open_reader
from pipeline.clients.webhook import addresses, check_endpoint, open_webhooks
from pipeline.core import names
from pipeline.core.catalog import Catalog
from pipeline.core.control import ControlState, Entry
from pipeline.core.errors import Outcome
from pipeline.core.payloads import Audit
from pipeline.core.ports import WebhookMessage
from pipeline.ops.deliveries import DeliveryLog, Outcomes, Wanted
from pipeline.ops.endpoints import checked
from pipeline.ops.log_scan import Progress
from pipeline.ops.resend import MESSAGES, Resender, Sources
from pipeline.runtime.plan import plan
from pipeline.settings import Configured
from pipeline.stages.message import trial
from pipeline.topology import AUDIT, DELIVERIES
from pipeline.wiring import CLOCK, STAGES, ControlDesk, Say, catalog_of, open_control
from pipeline.world import kafka_of

SENDERS = ("notify", "deliver")
"""The stages that post webhooks."""


@dataclass(frozen=True, slots=True)
class DeliveryDesk:
    """What a person works with: what is in force, the log, and what sends again."""

    catalog: Catalog
    control: ControlDesk
    log: DeliveryLog
    resender: Resender

    @property
    def state(self) -> ControlState:
        """What was in force when it was opened."""
        return self.control.state

    async def tell(self, entries: Sequence[Entry], audit: Audit) -> None:
        """Write what was done to the audit, and then to the control topic, for all workers."""
        await self.control.tell(entries, [audit])

    async def outcomes(self, since_ms: int | None) -> dict[str, Outcomes]:
        """Add up the log by endpoint."""
        found: dict[str, Outcomes] = {}
        async for entry in self.log.entries(Wanted(since_ms=since_ms)):
            found.setdefault(entry.delivery.endpoint or "", Outcomes()).add(entry)
        return found


@asynccontextmanager
async def open_deliveries(configured: Configured, say: Say, progress: Progress) -> AsyncIterator[DeliveryDesk]:
    """Open the desk. Raises ConfigurationError where the broker does not answer or a topic is not there."""
    prefix = configured.settings.topic_prefix
    log = names.topic(prefix, DELIVERIES.noun)
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(open_control(configured, say, AUDIT.noun, DELIVERIES.noun))
        reader = await stack.enter_async_context(open_reader(kafka_of(configured), log))
        publisher = control.publisher
        bound = [plan(STAGES[name], prefix) for name in SENDERS]
        routes = {source: one.retry_topic(one.stage.retry.tiers[0]) for one in bound for source in one.sources}
        sources = Sources(reader, publisher.codec, routes, names.topic(prefix, MESSAGES))
        resender = Resender(sources, publisher.producer, publisher.audit, progress, CLOCK)
        entries = DeliveryLog(reader, control.shelf, publisher.codec, log, progress)
        yield DeliveryDesk(catalog_of(configured), control, entries, resender)


@dataclass(frozen=True, slots=True)
class Trial:
    """How a test of an endpoint went: `problem` is empty where it took the message.

    `addresses` are the IP addresses that its name has, `keys` what its receiver verifies with.
    """

    endpoint: str
    webhook_id: str
    problem: str
    status: int | None
    duration_ms: int
    response_bytes: int
    addresses: Sequence[str] = ()
    keys: Sequence[str] = ()

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


async def try_endpoint(configured: Configured, name: str) -> Trial:
    """Post a signed `endpoint.test` message from here, as a worker would. Raises ConfigurationError for an unknown name
    and for an endpoint that is not configured."""
    catalog = catalog_of(configured)
    environment = configured.environment
    known = addresses({name: checked(name, catalog)}, environment.get, file_of=environment.file_of)
    allow = configured.settings.allow_loopback_webhooks
    looked = await check_endpoint(name, known[name], allow_loopback=allow)
    webhook_id = f"test_{uuid4().hex}"
    if looked.problem:
        return Trial(name, webhook_id, looked.problem, None, 0, 0, looked.addresses, looked.keys)
    begun = CLOCK()
    status, size, problem = None, 0, ""
    async with open_webhooks(known, allow_loopback=allow, clock=CLOCK) as webhooks:
        try:
            answer = await webhooks.post(WebhookMessage(name, webhook_id, trial(name, int(begun * 1000))))
            status, size = answer.status, answer.response_bytes
            problem = answer.refusal.reason if answer.refusal else ""
        except Outcome as refused:
            problem = refused.reason
    took = max(0, round((CLOCK() - begun) * 1000))
    return Trial(name, webhook_id, problem, status, took, size, looked.addresses, looked.keys)

"""preprocess: a request is checked and normalised, and becomes a prompt in a lane, under a deadline.

What is wrong with a request is the caller's to mend, so every refusal here is a `Fail` whose reason says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.catalog import Catalog, EventType
from pipeline.core.errors import Fail
from pipeline.core.event import Event
from pipeline.core.job import Job, Lane
from pipeline.core.limits import MAX_INPUT_CHARACTERS, estimate_tokens
from pipeline.core.payloads import Prompt, Request
from pipeline.core.stage import Context
from pipeline.stages.bounds import check_filters, check_freshness, check_label, check_metadata, short
from pipeline.stages.normalise import normalise
from pipeline.stages.post import brought


@dataclass(frozen=True)
class Preprocess:
    """Accepts or fails requests by the catalog. Same request, same catalog: same prompt."""

    catalog: Catalog

    async def __call__(self, event: Event[Request], ctx: Context) -> Sequence[Prompt]:
        """Return the one prompt of a request. Raises Fail with a code and a reason for the caller."""
        request, job = event.payload, event.job
        check_tenant(self.catalog, job.tenant)
        kind = find_kind(self.catalog, request.type)
        conversation = request.conversation or job.conversation
        check_label("conversation", conversation)
        check_filters(request.filters, kind.retrieval.filters)
        check_freshness(request.as_fresh_as)
        check_metadata(request.metadata)
        check_endpoint(self.catalog, request, job.tenant, kind)
        text = read_input(request.input)
        prompt = Prompt(
            endpoint=request.endpoint,
            metadata=request.metadata,
            type=request.type,
            input=text,
            input_tokens=count_tokens(text, kind),
            lane=choose_lane(request, job, kind),
            deadline_ms=set_deadline(request, job, kind, ctx.now()),
            catalog=self.catalog.version,
            conversation=conversation or None,
            filters=request.filters,
            as_fresh_as=request.as_fresh_as,
        )
        return [prompt]


def check_tenant(catalog: Catalog, tenant: str) -> None:
    """Refuse a tenant that the catalog does not list, where it lists any."""
    check_label("tenant", tenant)
    if catalog.tenants is not None and tenant not in catalog.tenants:
        raise Fail(f"the tenant {short(tenant)} is not known here", code="unknown_tenant")


def find_kind(catalog: Catalog, name: str) -> EventType:
    """Return the event type that a request names, or say which names there are."""
    kind = catalog.types.get(name)
    if kind is None:
        known = ", ".join(sorted(catalog.types))
        raise Fail(f"there is no type {short(name)}; the known types are: {known}", code="unknown_type")
    return kind


def check_endpoint(catalog: Catalog, request: Request, tenant: str, kind: EventType) -> None:
    """Refuse an endpoint that the type does not offer: another type's name is as unknown as one that is nowhere.

    A URL is one that the tenant may bring, by the host.
    """
    wanted, offered = request.endpoint, (kind.endpoint, *kind.endpoints)
    if wanted is None or wanted in offered or brought(catalog, tenant, wanted):
        return
    if "://" in wanted:
        reason = f"the tenant {short(tenant)} may not bring this URL: https, and a host that the catalog lists for it"
        raise Fail(reason, code="unknown_endpoint")
    reason = f"the type {request.type!r} has no endpoint {short(wanted)}; it has: {', '.join(offered)}"
    raise Fail(reason, code="unknown_endpoint")


def read_input(raw: str) -> str:
    """Normalise the input. Looks at the length first, as nothing else is cheap on a text of any size."""
    if len(raw) > MAX_INPUT_CHARACTERS:
        reason = f"the input has {len(raw)} characters; {MAX_INPUT_CHARACTERS} are allowed"
        raise Fail(reason, code="input_too_large")
    text = normalise(raw)
    if not text:
        raise Fail("the input is empty", code="empty_input")
    return text


def count_tokens(text: str, kind: EventType) -> int:
    """Estimate the input's tokens, and refuse more than the type allows."""
    tokens = estimate_tokens(text)
    if tokens > kind.max_input_tokens:
        reason = f"the input has about {tokens} tokens; this type allows {kind.max_input_tokens}"
        raise Fail(reason, code="input_too_large")
    return tokens


def choose_lane(request: Request, job: Job, kind: EventType) -> Lane:
    """Take the lane of the request, else of its header, else of the type; only the type's lanes are open to it."""
    lane = request.lane or job.lane or kind.lane
    if lane not in kind.lanes:
        reason = f"the type {request.type!r} may not use the lane {lane!r}; it may use: {', '.join(kind.lanes)}"
        raise Fail(reason, code="lane_not_allowed")
    return lane


def set_deadline(request: Request, job: Job, kind: EventType, now: float) -> int:
    """Return the earliest of the request's, the header's and the type's deadline, in epoch milliseconds.

    The request's and the type's count from acceptance, not from now: a retry of this stage gives no extra time.
    """
    ends = [job.accepted_at_ms + int(kind.deadline_seconds * 1000)]
    if request.deadline_ms is not None:
        ends.append(job.accepted_at_ms + request.deadline_ms)
    if job.deadline_ms is not None:
        ends.append(job.deadline_ms)
    deadline = min(ends)
    if deadline <= now * 1000:
        raise Fail("the deadline had passed before the request was looked at", code="deadline")
    return deadline

"""An event: a decoded record. Immutable; `derive` makes a child that cannot lose its job, trace or key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, TypeVar

from pipeline.core import headers as h
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import DEFAULT_TENANT, Job, child_id, job_id, positional_job_id
from pipeline.core.payloads import Payload, Request
from pipeline.core.quick import quick
from pipeline.core.record import Header, Headers, Record
from pipeline.core.trace import Trace, parse, root

P = TypeVar("P", bound=Payload)
P_co = TypeVar("P_co", bound=Payload, covariant=True)

MAX_HOPS = 32
"""How many stages an event may pass; more means a loop in somebody's wiring."""
MAX_ID = 256
"""The longest `ce_id` or `ce_source` taken as an identity, in characters."""

_NO_TRIES = Tries()
_VERSION: Header = (h.CE_SPECVERSION, b"1.0")
_SENDER: Header = (h.CE_SOURCE, b"pipeline")
_AVRO: Header = (h.CONTENT_TYPE, b"application/avro")


@quick
@dataclass(frozen=True, slots=True)
class Event(Generic[P_co]):
    """Metadata and typed payload. `id` is the idempotency key for calls to the outside; `key` the ordering key."""

    id: str
    job: Job
    payload: P_co
    key: bytes
    trace: Trace
    origin: Origin
    tries: Tries = _NO_TRIES
    not_before: float = 0.0
    parent: str | None = None
    output: str = ""
    carried: Headers = ()

    def derive(self, payload: P, stage: str, index: int = 0, total: int = 1) -> Event[P]:
        """Make output `index` of `total` of `stage`: a deterministic id, the same job and key, a child span."""
        job = payload.advance(self.job)
        child = child_id(self.id, stage, index, job.run)
        return Event(
            id=child,
            job=job.one_stage_on(self.job.hops),
            payload=payload,
            key=self.key,
            trace=self.trace.child(child),
            origin=self.origin,
            parent=self.id,
            output=f"{index}/{total}",
            carried=self.carried,
        )

    def headers(self, noun: str, now: float) -> Headers:
        """Spell the metadata for a new record on the topic of `noun`, written at `now` (seconds since the epoch)."""
        written: list[Header] = [
            _VERSION,
            (h.CE_ID, self.id.encode("ascii")),
            _SENDER,
            _kind(noun),
            (h.CE_TIME, _timestamp(now)),
            (h.CE_SUBJECT, self.job.id.encode("ascii")),
            _AVRO,
            *h.trace_headers(self.trace),
            *h.job_headers(self.job),
            (h.SOURCE, str(self.origin.position).encode("ascii")),
            (h.OUTPUT, self.output.encode("ascii")),
        ]
        if self.parent:
            written.append((h.PARENT, self.parent.encode("ascii")))
        return (*written, *self.carried)


def receive(record: Record, payload: P, *, open_topic: bool, copy: bool, now: float) -> Event[P]:
    """Build the event of a decoded record.

    On an `open_topic`, which outsiders write, every `pipeline-*` header but lane, deadline and conversation is
    ignored, and the tenant is the payload's: whoever may write the topic may speak for its tenants. On a retry `copy`
    the bookkeeping headers are ours and count.
    """
    read = h.texts(record.headers)
    origin = h.origin(record, read, copy=copy)
    if open_topic:
        job, event_id = _outsiders_job(record, payload, read, origin, _first_seen(read, now) if copy else now)
    else:
        job, event_id = _our_job(record, read, origin)
    baggage = read.get(h.BAGGAGE, "")
    span = parse(read.get(h.TRACEPARENT, ""), read.get(h.TRACESTATE, ""), baggage) or root(job.id, baggage)
    return Event(
        id=event_id,
        job=job,
        payload=payload,
        key=record.key if record.key is not None else _own_key(payload, job),
        trace=span.child(event_id) if open_topic else span,
        origin=origin,
        tries=h.tries(read) if copy else _NO_TRIES,
        not_before=h.count(read.get(h.NOT_BEFORE), h.MAX_TIME) / 1000 if copy else 0.0,
        parent=None if open_topic else read.get(h.PARENT),
        output="" if open_topic else read.get(h.OUTPUT, ""),
        carried=h.carried(record.headers),
    )


@lru_cache(maxsize=64)
def _kind(noun: str) -> Header:
    return h.CE_TYPE, f"pipeline.{noun}".encode("ascii")


def _timestamp(now: float) -> bytes:
    """Spell a time in seconds since the epoch as RFC 3339, to the millisecond, cut and not rounded."""
    seconds, fraction = divmod(now, 1)
    # First to the nearest microsecond, as `datetime` has it: 0.001 is a little less than a thousandth.
    second, millisecond = divmod(int(seconds) * 1000 + round(fraction * 1e6) // 1000, 1000)
    return b"%s.%03d+00:00" % (_second(second), millisecond)


@lru_cache(maxsize=2)
def _second(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19].encode("ascii")


def _own_key(payload: Payload, job: Job) -> bytes:
    wanted = payload.key if isinstance(payload, Request) else None
    return (wanted or job.id).encode()


def _outsiders_job(
    record: Record, payload: Payload, read: Mapping[str, str], origin: Origin, seen: float
) -> tuple[Job, str]:
    tenant = getattr(payload, "tenant", None) or DEFAULT_TENANT
    given = read.get(h.CE_ID) or (payload.id if isinstance(payload, Request) else None) or ""
    source = read.get(h.CE_SOURCE, "")
    known = given and len(given) <= MAX_ID and len(source) <= MAX_ID
    name = job_id(tenant, source, given) if known else _positional(record, origin)
    job = Job(
        id=name,
        tenant=tenant,
        type=getattr(payload, "type", ""),
        lane=h.lane(read.get(h.LANE)),
        deadline_ms=h.deadline(read.get(h.DEADLINE)),
        accepted_at_ms=_accepted_at(origin.timestamp_ms, seen),
        conversation=h.unquoted(read.get(h.CONVERSATION)),
    )
    return job, name


def _our_job(record: Record, read: Mapping[str, str], origin: Origin) -> tuple[Job, str]:
    event_id = read.get(h.CE_ID) or _positional(record, origin)
    return h.read_job(read, read.get(h.CE_SUBJECT) or event_id), event_id


def _positional(record: Record, origin: Origin) -> str:
    topic, partition, offset = origin.position
    return positional_job_id(
        Record(topic, partition, offset, record.key, record.value, timestamp_ms=origin.timestamp_ms)
    )


def _accepted_at(timestamp_ms: int, seen: float) -> int:
    # A sender's clock may be absent (-1) or run ahead; a deadline counted from the future would never come.
    return timestamp_ms if 0 < timestamp_ms <= seen * 1000 else int(seen * 1000)


def _first_seen(read: Mapping[str, str], now: float) -> float:
    # Else each copy of a record whose sender has no good clock would be accepted anew, with a new deadline.
    return min(now, h.count(read.get(h.FIRST_FAILURE), h.MAX_TIME) / 1000 or now)

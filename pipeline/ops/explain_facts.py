"""One record as a fact of its job's story: what it is, where and when, and what it says without its texts. Pure.

What people wrote (requests, passages, answers) is left out unless it is asked for: of those a fact has the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from pipeline.core import headers as h
from pipeline.core.errors import Outcome, Reject
from pipeline.core.event import Event, receive
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.letter import letter_id
from pipeline.core.patch import change_of, changed
from pipeline.core.payloads import JobPayload, Payload
from pipeline.core.ports import Codec
from pipeline.core.record import Position, Record
from pipeline.core.retry import describe
from pipeline.ops.explain_layout import Layout, Place

PLAIN = frozenset(
    {
        *("type", "lane", "deadline_ms", "input_tokens", "catalog", "model", "finish_reason", "usage_estimated"),
        *("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms", "truncated", "request_id"),
        *("stage", "code", "reason", "recoverable", "failed_at_ms"),
        *("endpoint", "webhook_id", "kind", "outcome", "status", "attempts", "finished_at_ms", "body_version"),
        *("duration_ms", "request_bytes", "response_bytes", "ordered"),
        *("source", "version", "deleted", "emptied", "body_kept", "committed_at_ms"),
    }
)
"""The fields of payloads that tell nothing of what a person wrote."""

DEAD = ("stage", "group", "code", "exception", "reason", "fingerprint", "at", "version", "note")
RETRY = ("code", "reason")
MOST_TEXT = 500
"""The longest text of a fact that is not a payload's, in characters."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one record says of its job. Times are milliseconds since the epoch, 0 where nobody told.

    `stage` wrote it; empty where an outsider did, or where that is not known. `event` and `parent` are ids of events;
    `source` is where the record stood that it was made of. `problem` is why it could not be decoded. `says` holds the
    plain fields of its payload and the sizes of the others, `dead` why it is a dead letter, `waits_for` why it waits in
    a tier, `replay` who brought it back, and `payload` all of it, where that was asked for.
    """

    place: Place
    position: Position
    at_ms: int
    job: Job
    event: str
    trace: str
    size: int
    stage: str = ""
    parent: str | None = None
    tries: Tries = field(default_factory=Tries)
    origin: Origin | None = None
    not_before_ms: int = 0
    source: Position | None = None
    problem: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    dead: Mapping[str, str] = field(default_factory=dict)
    waits_for: Mapping[str, str] = field(default_factory=dict)
    replay: Mapping[str, str] = field(default_factory=dict)
    letter: str = ""
    payload: Mapping[str, Any] | None = None


def letter_of(record: Record, place: Place) -> str:
    """Name a dead letter; empty for all else."""
    return letter_id(record) if place.kind == "dead letter" else ""


async def payload_of(codec: Codec, layout: Layout, place: Place, record: Record) -> tuple[Payload | None, str]:
    """Decode what a record carries; returns nothing, and why, where it cannot be. Never raises an error."""
    declared = layout.declared(place, _stood_on(place, record))
    if declared is None:
        return None, ""
    if record.value is None:
        return None, "the record has a null value"
    try:
        return await codec.decode(declared.noun, declared.payload, record.value), ""
    except Outcome as error:
        return None, error.reason[:MOST_TEXT]
    except Exception as error:
        return None, describe(error, MOST_TEXT)


def event_of(record: Record, place: Place, layout: Layout, payload: Payload | None, now: float) -> Event[Payload]:
    """Read a record's headers as the runtime does, so that ids are the same; without a payload, as one of junk."""
    if place.kind == "foreign" or (place.copies and layout.declared(place, _stood_on(place, record)) is None):
        record = replace(record, headers=h.public(record.headers, copy=place.copies))
    open_topic = place.declared.open_topic
    event = receive(record, payload or JobPayload(), open_topic=open_topic, copy=place.copies, now=now)
    try:
        change = change_of(h.texts(record.headers)) if place.copies else None
        return event if change is None else changed(event, change)
    except Reject:
        return event


def fact_of(
    record: Record, place: Place, event: Event[Payload], layout: Layout, problem: str = "", *, show: bool = False
) -> Fact:
    """Make the fact of a record and its event. `show` keeps the payload; `problem` is why there is none."""
    read, payload = h.texts(record.headers), event.payload
    made_of = None if place.declared.open_topic or place.copies else h.settled(read.get(h.SOURCE))
    source = made_of[0] if made_of else None
    says = plainly(payload)
    writer = layout.writer(place, source.topic if source else "")
    return Fact(
        place=place,
        position=record.position,
        at_ms=max(record.timestamp_ms, 0),
        job=event.job,
        event=event.id,
        trace=event.trace.trace_id,
        size=len(record.value or b""),
        stage=str(says.get("stage", "")) or writer if place.kind == "failure" else writer,
        parent=event.parent,
        tries=event.tries,
        origin=event.origin,
        not_before_ms=int(event.not_before * 1000),
        source=source,
        problem=problem,
        says=says,
        letter=letter_of(record, place),
        dead=_told(read, h.DEAD, DEAD) if place.kind == "dead letter" else {},
        waits_for=_told(read, h.RETRY, RETRY) if place.kind == "retry" else {},
        replay=_replay(read) if place.copies else {},
        payload=payload.model_dump(mode="json") if show and not problem else None,
    )


def plainly(payload: Payload) -> dict[str, Any]:
    """Return the fields of a payload that are no text of people's, and of the others that are set their sizes."""
    told: dict[str, Any] = {}
    for name in type(payload).model_fields:
        value = getattr(payload, name)
        if value is None or value == "" or value is False:
            continue
        if name in PLAIN:
            told[name] = _short(name, value)
        elif isinstance(value, str):
            told[f"{name}_characters"] = len(value)
        elif isinstance(value, tuple) or (isinstance(value, list | dict) and value):
            told[name] = len(value)  # also that there are none: no passages found say something
    return told


def _short(name: str, value: Any) -> Any:
    if name == "endpoint" and isinstance(value, str) and "://" in value:
        return _host(value)
    return value[:MOST_TEXT] if isinstance(value, str) else value


def _host(address: str) -> str:
    # What follows the host may be a secret.
    try:
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.hostname or ''}/..."
    except ValueError:
        return "an address"


def _stood_on(place: Place, record: Record) -> str:
    if not place.copies:
        return record.topic
    return h.origin(record, h.texts(record.headers), copy=True).position.topic


def _told(read: Mapping[str, str], prefix: str, names: Iterable[str]) -> dict[str, str]:
    told = {name: read.get(f"{prefix}{name}") for name in names}
    return {name: h.unquoted(text)[:MOST_TEXT] for name, text in told.items() if text}


def _replay(read: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(h.REPLAY): text[:MOST_TEXT] for name, text in read.items() if name.startswith(h.REPLAY)}

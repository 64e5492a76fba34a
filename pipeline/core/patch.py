"""What a replay changes of the work that it brings back: its run, its deadline, and fields that a person has set.

It travels in headers (`pipeline-replay-*`), since the record itself goes back byte for byte, and is applied to what was
decoded. Only our own copies say such things: on the original of an open topic the same headers are dropped unread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core import headers as h
from pipeline.core.errors import Reject
from pipeline.core.event import Event
from pipeline.core.job import child_id
from pipeline.core.payloads import Payload, Prompt, Request

P = TypeVar("P", bound=Payload)


class Patch(BaseModel):
    """The fields that may be set: the event type, and of what that says the model and the token budget of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str | None = Field(default=None, min_length=1, max_length=200)
    model: str | None = Field(default=None, min_length=1, max_length=200)
    max_output_tokens: int | None = Field(default=None, ge=1, le=10_000_000)

    def text(self) -> str:
        """Spell it as headers have it: JSON of what is set, the same text each time."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True)

    def over(self, former: Patch) -> Patch:
        """Return what holds when this is set after `former`."""
        return Patch(**(former.model_dump(exclude_none=True) | self.model_dump(exclude_none=True)))


def read_patch(text: str) -> Patch:
    """Read what `Patch.text` has spelt; nothing is an empty patch. Raises Reject for what is none."""
    if not text:
        return _NONE
    try:
        return Patch.model_validate_json(text)
    except ValidationError:
        raise Reject(f"a replay has set what cannot be set: {text[:200]}", code="bad_patch") from None


def overridden(text: str) -> Patch:
    """Read a job's overrides, which our own code has spelt; what cannot be read overrides nothing."""
    try:
        return read_patch(text)
    except Reject:
        return _NONE


_NONE = Patch()


@dataclass(frozen=True, slots=True)
class Change:
    """What the headers of a replayed copy change."""

    run: int
    patch: Patch
    deadline_ms: int | None


def change_of(read: Mapping[str, str]) -> Change | None:
    """Read what a copy's headers change of it; None where it is no replay, or one that changes nothing.

    Raises Reject where that cannot be read: without it the work would be done as it failed before.
    """
    run, patch = h.count(read.get(h.REPLAY_RUN)), h.unquoted(read.get(h.REPLAY_PATCH))
    deadline = h.deadline(read.get(h.REPLAY_DEADLINE))
    if not run and not patch and deadline is None:
        return None
    return Change(run, read_patch(patch), deadline)


def changed(event: Event[P], change: Change) -> Event[P]:
    """Return the event as the replay wants it.

    A raised run names it anew, so that all that comes of it is new as well: other ids, another webhook-id.
    """
    job, payload, patch = event.job, event.payload, change.patch
    if patch.type is not None:
        job = job.advanced(type=patch.type)
        if "type" in type(payload).model_fields:
            payload = payload.model_copy(update={"type": patch.type})
    if patch.model is not None or patch.max_output_tokens is not None:
        job = job.advanced(overrides=patch.over(read_patch(job.overrides)).text())
    if change.deadline_ms is not None:
        job = job.advanced(deadline_ms=change.deadline_ms)
        if isinstance(payload, Request):
            # Its own and its type's deadline count from acceptance, and that is when it was brought back.
            job = job.advanced(accepted_at_ms=int(event.not_before * 1000))
            payload = payload.model_copy(update={"deadline_ms": None})
        if isinstance(payload, Prompt):
            payload = payload.model_copy(update={"deadline_ms": change.deadline_ms})
    if change.run > job.run:
        job = job.advanced(run=change.run)
        event = replace(event, id=child_id(event.id, "run", 0, change.run))
    return replace(event, job=job, payload=payload)

"""Identity: which job a record belongs to, and the ids of everything derived from it.

The same input twice gives the same ids, so every sink can be idempotent. UUIDv5 is RFC 9562 section 5.5.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID, uuid5

from pipeline.core.record import Record

Lane = Literal["interactive", "standard", "batch"]
LANES: tuple[Lane, ...] = ("interactive", "standard", "batch")
"""Classes of service, most urgent first."""

NAMESPACE = UUID("5a0c6d0e-7f0b-5c55-9d0c-0f6f6a1f6e51")
"""The namespace of every id of this project; changing it would change every id."""


def _uuid(*parts: str | int) -> str:
    # JSON keeps ("a", "bc") apart from ("ab", "c"), which plain joining would not.
    return str(uuid5(NAMESPACE, json.dumps(parts, ensure_ascii=True, separators=(",", ":"))))


def job_id(tenant: str, source: str, ce_id: str) -> str:
    """Name the job of a request whose sender gave it an id: a second request with the same id is the same job."""
    return _uuid("job", tenant, source, ce_id)


def positional_job_id(record: Record) -> str:
    """Name the job of a request without an id, by where it stands in the log and what it says.

    The timestamp and the hash tell records apart that stand at one position of a topic deleted and re-created.
    """
    digest = hashlib.sha256(record.value or b"").hexdigest()
    return _uuid("record", record.topic, record.partition, record.offset, record.timestamp_ms, digest)


def child_id(parent: str, stage: str, index: int, run: int) -> str:
    """Name the output `index` of `stage` for the event `parent`; a patched replay raises `run`."""
    return _uuid("event", parent, stage, index, run)


@dataclass(frozen=True, slots=True)
class Job:
    """What holds for everything that is done for one request; copied to every child (job-scoped headers).

    `deadline_ms` and `accepted_at_ms` are milliseconds since the epoch; `cost_usd` is what was paid so far.
    """

    id: str
    tenant: str = "default"
    type: str = ""
    lane: Lane | None = None
    deadline_ms: int | None = None
    run: int = 0
    catalog: str = ""
    accepted_at_ms: int = 0
    conversation: str = ""
    hops: int = 0
    cost_usd: float = 0.0

    def advanced(self, **changes: object) -> Job:
        """Return a copy with `changes`; the id never changes."""
        return replace(self, **{**changes, "id": self.id})  # type: ignore[arg-type]  # names are checked by replace

    def late(self, now: float) -> bool:
        """Tell whether the deadline has passed at `now` (seconds since the epoch)."""
        return self.deadline_ms is not None and now * 1000 >= self.deadline_ms

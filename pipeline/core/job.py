"""Identity: which job a record belongs to, and the ids of everything derived from it.

The same input twice gives the same ids, so every sink can be idempotent. UUIDv5 is RFC 9562 section 5.5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as json_text
from typing import Literal
from uuid import UUID

from pipeline.core.quick import quick
from pipeline.core.record import Position, Record

Lane = Literal["interactive", "standard", "batch"]
LANES: tuple[Lane, ...] = ("interactive", "standard", "batch")
"""Classes of service, most urgent first."""
DEFAULT_TENANT = "default"
"""Whose a job is that names nobody."""

NAMESPACE = UUID("5a0c6d0e-7f0b-5c55-9d0c-0f6f6a1f6e51")
"""The namespace of every id of this project; changing it would change every id."""


_HASHED_NAMESPACE = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The digit with RFC 9562's variant in its two highest bits, for any digit there was."""


def _uuid(kind: str, parts: str) -> str:
    """Name a thing by its kind and the JSON of its parts: `uuid.uuid5` over the JSON list of all, spelt by hand.

    JSON keeps ("a", "bc") apart from ("ab", "c"), which plain joining would not. By hand because two ids are made for
    every record, and `json` and `uuid` take five times as long.
    """
    name = _HASHED_NAMESPACE.copy()
    name.update(f'["{kind}",{parts}]'.encode("ascii"))
    digits = name.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def job_id(tenant: str, source: str, ce_id: str) -> str:
    """Name the job of a request whose sender gave it an id: a second request with the same id is the same job."""
    return _uuid("job", f"{json_text(tenant)},{json_text(source)},{json_text(ce_id)}")


def positional_job_id(record: Record) -> str:
    """Name the job of a request without an id, by where it stands in the log and what it says.

    The timestamp and the hash tell records apart that stand at one position of a topic deleted and re-created.
    """
    digest = hashlib.sha256(record.value or b"").hexdigest()
    place = f"{json_text(record.topic)},{record.partition},{record.offset},{record.timestamp_ms}"
    return _uuid("record", f'{place},"{digest}"')


def child_id(parent: str, stage: str, index: int, run: int) -> str:
    """Name the output `index` of `stage` for the event `parent`; a patched replay raises `run`."""
    return _uuid("event", f"{json_text(parent)},{json_text(stage)},{index},{run}")


def letter_id(place: Position, timestamp_ms: int) -> str:
    """Name the dead letter at a place of a dead-letter topic; the time tells it from another in a topic made anew."""
    return _uuid("letter", f"{json_text(place.topic)},{place.partition},{place.offset},{timestamp_ms}")


MOST_HOPS = 1_000_000
"""Where the count of stages stops: no more can be read again from a header, and far fewer are a loop already."""


@quick
@dataclass(frozen=True, slots=True)
class Job:
    """What holds for everything that is done for one request; copied to every child (job-scoped headers).

    `deadline_ms` and `accepted_at_ms` are milliseconds since the epoch; `cost_usd` is what was paid so far.
    `overrides` is what an operator has changed of what its type says: JSON text, which `core.patch` reads.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    type: str = ""
    lane: Lane | None = None
    deadline_ms: int | None = None
    run: int = 0
    catalog: str = ""
    accepted_at_ms: int = 0
    conversation: str = ""
    hops: int = 0
    cost_usd: float = 0.0
    overrides: str = ""

    def advanced(self, **changes: object) -> Job:
        """Return a copy with `changes`; the id never changes."""
        return replace(self, **{**changes, "id": self.id})  # type: ignore[arg-type]  # names are checked by replace

    def one_stage_on(self, hops: int) -> Job:
        """Return the job after one more stage than `hops`, of which no more than `MOST_HOPS` are counted."""
        return Job(
            self.id,
            self.tenant,
            self.type,
            self.lane,
            self.deadline_ms,
            self.run,
            self.catalog,
            self.accepted_at_ms,
            self.conversation,
            min(hops, MOST_HOPS - 1) + 1,
            self.cost_usd,
            self.overrides,
        )

    def late(self, now: float) -> bool:
        """Tell whether the deadline has passed at `now` (seconds since the epoch)."""
        return self.deadline_ms is not None and now * 1000 >= self.deadline_ms

"""What a dead letter says of itself: read from its headers alone, cheaply, and whoever wrote them.

Nothing here raises, whatever the headers are: none at all, nulls, junk, other families', or those of a newer version
of ours, whose unknown `pipeline-dead-*` are passed over. What many letters share is read once, and held once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from pipeline.core import headers as h
from pipeline.core.deadletter import Grave, fingerprint
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import Job
from pipeline.core.job import letter_id as _letter_id
from pipeline.core.letter_headers import MAX_TEXT, Family, number, read_foreign, readable
from pipeline.core.patch import overridden
from pipeline.core.quick import quick
from pipeline.core.record import Position, Record
from pipeline.core.trace import parse

DEAD_SUFFIX = ".dlq"
NO_CODE = "unknown"
"""The reason class of a letter that tells none."""

_STAGE, _GROUP, _CODE = f"{h.DEAD}stage", f"{h.DEAD}group", f"{h.DEAD}code"
_EXCEPTION, _REASON, _FINGERPRINT = f"{h.DEAD}exception", f"{h.DEAD}reason", f"{h.DEAD}fingerprint"
_AT, _VERSION = f"{h.DEAD}at", f"{h.DEAD}version"

_ORIGIN = re.compile(r"([a-zA-Z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,19})/(-1|[0-9]{1,19})")
_KINDS = 4_096

Raw = bytes | None


class Kind(NamedTuple):
    """What many letters have in common: where and how they failed. `code` is the reason class."""

    stage: str
    group: str
    code: str
    exception: str
    fingerprint: str
    version: str


class Owner(NamedTuple):
    """Whose a letter is, as its headers tell; empty where they do not."""

    type: str = ""
    tenant: str = ""
    run: int = 0
    hops: int = 0


class Former(NamedTuple):
    """The replay that a letter comes from: its id, the letter that was replayed, and how many replays there were."""

    replay_id: str = ""
    letter: str = ""
    replays: int = 0


NOBODY, NEVER = Owner(), Former()


@quick
@dataclass(frozen=True, slots=True)
class LetterHead:
    """A dead letter without its key and value. Texts are empty, and times 0, where it does not tell.

    `original` spells where the record first stood (see `origin`); `deadline_ms` is None where there is none.
    A replay's changes of run, type and deadline are told.
    `opaque`: it came from outsiders, so that job, type and tenant are in its value alone (see `told`).
    """

    position: Position
    timestamp_ms: int
    family: Family
    kind: Kind
    reason: str
    failed_at_ms: int
    first_failure_ms: int
    original: str
    tries: Tries
    traceparent: str
    deadline_ms: int | None
    replayed: Former
    opaque: bool
    job: str
    owner: Owner

    @property
    def id(self) -> str:
        """The letter's id: the same each time it is read, and of no other."""
        return _letter_id(self.position, self.timestamp_ms)

    @property
    def stage(self) -> str:
        """The stage that gave up."""
        return self.kind.stage

    @property
    def group(self) -> str:
        """The consumer group that gave up; Connect's connector."""
        return self.kind.group

    @property
    def code(self) -> str:
        """The reason class."""
        return self.kind.code

    @property
    def exception(self) -> str:
        """The exception's type."""
        return self.kind.exception

    @property
    def fingerprint(self) -> str:
        """The kind of failure, see `core.deadletter.fingerprint`."""
        return self.kind.fingerprint

    @property
    def version(self) -> str:
        """The version of the software that gave up."""
        return self.kind.version

    @property
    def type(self) -> str:
        """The event type."""
        return self.owner.type

    @property
    def tenant(self) -> str:
        """The tenant."""
        return self.owner.tenant

    @property
    def run(self) -> int:
        """Which time the job was done."""
        return self.owner.run

    @property
    def hops(self) -> int:
        """How many stages it had passed."""
        return self.owner.hops

    @property
    def replay_id(self) -> str:
        """The replay that this letter comes from."""
        return self.replayed.replay_id

    @property
    def former(self) -> str:
        """The id of the letter that was replayed and became this one."""
        return self.replayed.letter

    @property
    def replays(self) -> int:
        """How many replays there were."""
        return self.replayed.replays

    @property
    def trace_id(self) -> str:
        """The trace."""
        span = parse(self.traceparent)
        return span.trace_id if span is not None else ""

    @property
    def origin(self) -> Origin | None:
        """Where the record first stood, and when it was written; None where that is not told."""
        told = _ORIGIN.fullmatch(self.original)
        return None if told is None else Origin(Position(told[1], int(told[2]), int(told[3])), int(told[4]))

    def told(self, job: Job) -> LetterHead:
        """Return the head of a letter whose value was decoded, as one of `job`."""
        return replace(self, opaque=False, job=job.id, owner=Owner(job.type, job.tenant, job.run, job.hops))


def letter_id(record: Record) -> str:
    """Name a dead letter: UUIDv5 of where it stands and of when it was written."""
    return _letter_id(record.position, record.timestamp_ms)


def stage_of(topic: str) -> str:
    """Tell whose dead-letter topic this is, by its name; empty where it is not one of ours."""
    name, suffix = topic[: -len(DEAD_SUFFIX)], topic[-len(DEAD_SUFFIX) :]
    return name.rpartition(".")[2] if suffix == DEAD_SUFFIX else ""


def read_head(record: Record, *, open_topic: bool = False) -> LetterHead:
    """Read what a dead letter says.

    `open_topic` says that its stage reads what outsiders write: then what its headers claim of job, type, tenant, run
    and hops was never believed, and is not told.
    """
    raw = dict(record.headers)  # the last occurrence of a name wins
    if _CODE not in raw and _STAGE not in raw and not any(map(_is_dead, raw)):
        head = _others(record, raw, opaque=open_topic)
    else:
        head = _ours(record, raw, opaque=open_topic)
    return head if h.REPLAY_ID not in raw else _as_replayed(head, raw)


def _ours(record: Record, raw: dict[str, Raw], *, opaque: bool) -> LetterHead:
    get = raw.get
    kind = _kind(record.topic, get(_STAGE), get(_GROUP), get(_CODE), get(_EXCEPTION), get(_VERSION), get(_FINGERPRINT))
    reason = h.unquoted(_text(get(_REASON)))
    if not kind.fingerprint:
        kind = kind._replace(fingerprint=_fingerprint(kind, reason))
    written = record.timestamp_ms
    return LetterHead(
        record.position,
        written,
        "pipeline",
        kind,
        reason if reason.isprintable() else readable(reason.encode("utf-8", "replace")),
        _time(get(_AT)) or max(0, written),
        _time(get(h.FIRST_FAILURE)),
        _text(get(h.ORIGINAL)),
        _tries(get(h.ATTEMPTS), get(h.DEFERRALS), get(h.TIMEOUTS)),
        _text(get(h.TRACEPARENT)),
        _deadline(get(h.DEADLINE)),
        NEVER,
        opaque,
        "" if opaque else _text(get(h.CE_SUBJECT)) or _text(get(h.CE_ID)),
        NOBODY if opaque else _owner(get(h.TYPE), get(h.TENANT), get(h.RUN), get(h.HOPS)),
    )


def _others(record: Record, raw: dict[str, Raw], *, opaque: bool) -> LetterHead:
    told = read_foreign(raw)
    code = told.exception.rpartition(".")[2] or NO_CODE
    kind = Kind(stage_of(record.topic), told.group, code, told.exception, "", "")
    get = raw.get
    return LetterHead(
        record.position,
        record.timestamp_ms,
        told.family,
        kind._replace(fingerprint=_fingerprint(kind, told.reason)),
        told.reason,
        max(record.timestamp_ms, 0),
        0,
        str(told.origin or ""),
        Tries(told.attempts),
        _text(get(h.TRACEPARENT)),
        _deadline(get(h.DEADLINE)),
        NEVER,
        opaque,
        "" if opaque else _text(get(h.CE_SUBJECT)) or _text(get(h.CE_ID)),
        NOBODY if opaque else _owner(get(h.TYPE), get(h.TENANT), get(h.RUN), get(h.HOPS)),
    )


def _is_dead(name: str) -> bool:
    return name.startswith(h.DEAD)


# Of these there are few: each is read once, and all letters share it, in time and in memory.
@lru_cache(maxsize=_KINDS)
def _kind(topic: str, *raw: Raw) -> Kind:
    stage, group, code, exception, version, grave = (h.unquoted(_text(one)) for one in raw)
    return Kind(
        _shown(stage) or stage_of(topic),
        _shown(group),
        _shown(code) or NO_CODE,
        _shown(exception),
        _shown(grave),
        _shown(version),
    )


@lru_cache(maxsize=_KINDS)
def _owner(kind: Raw, tenant: Raw, run: Raw, hops: Raw) -> Owner:
    event_type, owner = _shown(h.unquoted(_text(kind))), _shown(h.unquoted(_text(tenant)))
    return Owner(event_type, owner, h.count(_text(run)), h.count(_text(hops)))


@lru_cache(maxsize=_KINDS)
def _tries(attempts: Raw, deferrals: Raw, timeouts: Raw) -> Tries:
    return Tries(h.count(_text(attempts)), h.count(_text(deferrals)), h.count(_text(timeouts)))


def _as_replayed(head: LetterHead, raw: dict[str, Raw]) -> LetterHead:
    """Tell the former life, and what the replay has changed of the job: its run, its type, its deadline."""
    get = raw.get
    former = Former(_text(get(h.REPLAY_ID)), _text(get(h.REPLAY_LETTER)), h.count(_text(get(h.REPLAY_COUNT))))
    later, owner = _deadline(get(h.REPLAY_DEADLINE)), head.owner
    patch = overridden(h.unquoted(_text(get(h.REPLAY_PATCH))))
    if not head.opaque:
        run = max(owner.run, h.count(_text(get(h.REPLAY_RUN))))
        owner = owner._replace(run=run, type=_shown(patch.type or owner.type))
    return replace(head, replayed=former, owner=owner, deadline_ms=head.deadline_ms if later is None else later)


def _text(value: Raw) -> str:
    """Read printable ASCII, as all of ours is; anything else is absent."""
    if value and len(value) <= h.MAX_VALUE and value.isascii():
        text = value.decode("ascii")
        return text if text.isprintable() else ""
    return ""


def _time(value: Raw) -> int:
    found = number(value) if value and value.isdigit() else None
    return 0 if found is None else min(found, h.MAX_TIME)


def _deadline(value: Raw) -> int | None:
    # Junk is no deadline, as for the runtime.
    return _time(value) if value and value.isdigit() else None


def _shown(text: str) -> str:
    # What was escaped may be anything, also what steers a terminal.
    return text if text.isprintable() else readable(text.encode("utf-8", "replace"))


def _fingerprint(kind: Kind, reason: str) -> str:
    return fingerprint(Grave(kind.stage, kind.group, kind.code, kind.exception, reason[:MAX_TEXT], kind.version, 0.0))

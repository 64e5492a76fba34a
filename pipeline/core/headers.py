"""The names of all headers, how they are read, and whom to trust. Nobody else spells a header's name.

CloudEvents 1.0 binary mode for Kafka (section 3.2), W3C Trace Context and Baggage, and our own `pipeline-*`.
The last occurrence of a name wins; a value that is not ASCII or too long is treated as absent but carried along.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from pipeline.core.job import DEFAULT_TENANT, LANES, MOST_HOPS, Job, Lane
from pipeline.core.record import Header, Headers, Position, Record
from pipeline.core.trace import Trace

CE_SPECVERSION, CE_ID, CE_SOURCE, CE_TYPE = "ce_specversion", "ce_id", "ce_source", "ce_type"
CE_TIME, CE_SUBJECT, CONTENT_TYPE = "ce_time", "ce_subject", "content-type"
TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"
TENANT, TYPE, LANE, DEADLINE = "pipeline-tenant", "pipeline-type", "pipeline-lane", "pipeline-deadline"
RUN, CATALOG, ACCEPTED_AT = "pipeline-run", "pipeline-catalog", "pipeline-accepted-at"
CONVERSATION, HOPS, COST = "pipeline-conversation", "pipeline-hops", "pipeline-cost"
ATTEMPTS, DEFERRALS, TIMEOUTS = "pipeline-attempts", "pipeline-deferrals", "pipeline-timeouts"
NOT_BEFORE, SOURCE, PARENT, OUTPUT = "pipeline-not-before", "pipeline-source", "pipeline-parent", "pipeline-output"
ORIGINAL, FIRST_FAILURE = "pipeline-original", "pipeline-first-failure"
RETRY = "pipeline-retry-"
RETRY_CODE, RETRY_REASON = f"{RETRY}code", f"{RETRY}reason"
SETTLES, TRY = "pipeline-settles", "pipeline-try"
"""A copy's way back to its original: `topic/partition/offset/timestamp`, and when its first failure was.
Why a copy in a retry tier waits: the code and the reason of the try before it.
On all that a costly stage writes, the record that it settles: `topic/partition/offset/timestamp`. The timestamp tells
that record from another one at the same place of a topic that was deleted and made again.
On what is told of a try beside its outcome, the number of the attempt: it settles nothing."""

X_ORIGINAL = "x-original-"
DEAD = "pipeline-dead-"
REPLAY = "pipeline-replay-"
REPLAY_ID, REPLAY_LETTER, REPLAY_COUNT = f"{REPLAY}id", f"{REPLAY}letter", f"{REPLAY}count"
REPLAY_RUN, REPLAY_PATCH, REPLAY_DEADLINE = f"{REPLAY}run", f"{REPLAY}patch", f"{REPLAY}deadline"
OVERRIDES = "pipeline-overrides"
"""Of a replay: its id, the dead letter that it brings back and how often that has been done, and what it changes: the
run, fields (JSON), the deadline (epoch milliseconds). They stay on later copies, and so lead from a dead letter to its
former life; children do not have them. What a job overrides of its type (JSON) is copied to all its children."""

MAX_VALUE = 4_096
"""The longest value that is read, in bytes; `baggage` may hold 8,192 (W3C Baggage section 3.3.2)."""
MAX_CARRIED = 16_384
"""The most bytes of unknown headers that travel on to children."""
MAX_COUNT = MOST_HOPS
"""The highest count that bookkeeping headers may claim; more is somebody's mistake."""
MAX_TIME = 2**53
"""The latest time that a header may claim, in epoch milliseconds: what a JSON number holds exactly."""

COPY_SCOPED = frozenset(
    {ATTEMPTS, DEFERRALS, TIMEOUTS, NOT_BEFORE, ORIGINAL, FIRST_FAILURE, RETRY_CODE, RETRY_REASON, SETTLES}
)
"""Bookkeeping of retry and dead-letter copies: replaced on each copy, trusted only on our own topics."""

_PREFIXES = ("pipeline-", "ce_", X_ORIGINAL)
OURS = frozenset(
    {
        *(CE_SPECVERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_TIME, CE_SUBJECT, CONTENT_TYPE),
        *(TRACEPARENT, TRACESTATE, BAGGAGE),
        *(TENANT, TYPE, LANE, DEADLINE, RUN, CATALOG, ACCEPTED_AT, CONVERSATION, HOPS, COST),
        *(ATTEMPTS, DEFERRALS, TIMEOUTS, NOT_BEFORE, SOURCE, PARENT, OUTPUT, ORIGINAL, FIRST_FAILURE),
    }
)
"""The names that are never carried; so is none that begins with one of `_PREFIXES`."""
_PRINTABLE = bytes(range(0x20, 0x7F))
_PLAIN = re.compile(r"[\x20-\x24\x26-\x7e]*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_COST = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_SETTLES = re.compile(r"([a-zA-Z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,19})(?:/(-?[0-9]{1,19}))?")
_ORIGIN = re.compile(r"([a-zA-Z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,19})/(-1|[0-9]{1,19})")
_LANES: Mapping[str, Lane] = {lane: lane for lane in LANES}
_FREE: Header = (COST, b"0.000000000")
_DIGITS = 20  # more than any bound has; Python refuses to read numbers of thousands of digits
_FRAMING = 2  # the least that Kafka itself adds to a header, so that empty ones are not free


@dataclass(frozen=True, slots=True)
class Tries:
    """What has happened to a record so far: our faults, other people's turns, and tries cut at the deadline."""

    attempts: int = 0
    deferrals: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record first stood and when it was written (`timestamp_ms`), kept over all its copies."""

    position: Position
    timestamp_ms: int

    def __str__(self) -> str:
        """Spell it as the `pipeline-original` header has it."""
        return f"{self.position}/{self.timestamp_ms}"


def texts(headers: Iterable[Header]) -> dict[str, str]:
    """Read headers as text: last occurrence wins; null, non-ASCII and oversized values are absent."""
    told = tuple(headers)
    values = [value for _, value in told if value is not None]
    together = b"".join(values)
    if len(values) == len(told) and len(together) <= MAX_VALUE and not together.translate(None, _PRINTABLE):
        # One look at all of them has shown that each is good, as nearly always.
        return {name: value.decode() for name, value in told if value is not None}
    read: dict[str, str] = {}
    for name, value in told:
        text = _text(name, value)
        if text is None:
            read.pop(name, None)
        else:
            read[name] = text
    return read


def _text(name: str, value: bytes | None) -> str | None:
    if value is None or len(value) > (2 * MAX_VALUE if name == BAGGAGE else MAX_VALUE):
        return None
    return None if value.translate(None, _PRINTABLE) else value.decode("ascii")


def count(text: str | None, highest: int = MAX_COUNT) -> int:
    """Read a count; what is no plain number is 0, what is too high is `highest`."""
    if text is None or not text.isdecimal() or not text.isascii():
        return 0
    return min(int(text if len(text) <= _DIGITS else text.lstrip("0")[:_DIGITS] or 0), highest)


def deadline(text: str | None) -> int | None:
    """Read a deadline in epoch milliseconds; junk is no deadline, else a slip of the sender's would end its job."""
    return None if text is None or not (text.isdecimal() and text.isascii()) else count(text, MAX_TIME)


def lane(text: str | None) -> Lane | None:
    """Read a lane; None where the text names none."""
    return _LANES.get(text or "")


def tries(read: Mapping[str, str]) -> Tries:
    """Read the bookkeeping of a copy."""
    return Tries(count(read.get(ATTEMPTS)), count(read.get(DEFERRALS)), count(read.get(TIMEOUTS)))


def origin(record: Record, read: Mapping[str, str], *, copy: bool) -> Origin:
    """Tell where `record` first stood; a copy that lost its `pipeline-original` counts as an original."""
    told = _ORIGIN.fullmatch(read.get(ORIGINAL, "")) if copy else None
    if told is None:
        return Origin(record.position, record.timestamp_ms)
    return Origin(Position(told[1], int(told[2]), int(told[3])), int(told[4]))


def replay_due_ms(headers: Headers) -> int:
    """Read alone when what a replay brought back is due, in epoch milliseconds; 0 for all other records."""
    told = dict(headers)
    return count(_text(NOT_BEFORE, told.get(NOT_BEFORE)), MAX_TIME) if REPLAY_ID in told else 0


def settles(record: Record) -> Header:
    """Spell on what is written which record it settles."""
    return SETTLES, f"{record.position}/{record.timestamp_ms}".encode("ascii")


def settled(text: str | None) -> tuple[Position, int | None] | None:
    """Read which record is settled: its position and its timestamp, where that is told; None where it does not read."""
    told = _SETTLES.fullmatch(text or "")
    if told is None:
        return None
    return Position(told[1], int(told[2]), int(told[3])), None if told[4] is None else int(told[4])


def job_headers(job: Job) -> list[Header]:
    """Spell what is copied to every child. A name too long to be read again is cut, as none that is accepted is."""
    written = [*_who(job.tenant, job.type, job.lane)]
    if job.deadline_ms is not None:
        written.append((DEADLINE, b"%d" % job.deadline_ms))
    written += _what(job.run, job.catalog)
    written.append((ACCEPTED_AT, b"%d" % job.accepted_at_ms))
    if job.conversation:
        written.append((CONVERSATION, quoted(job.conversation, MAX_VALUE).encode("ascii")))
    written.append(_hops(job.hops))
    written.append((COST, f"{job.cost_usd:.9f}".encode("ascii")) if job.cost_usd else _FREE)
    if job.overrides:
        written.append((OVERRIDES, quoted(job.overrides, MAX_VALUE).encode("ascii")))
    return written


# Of these there are few: each is spelt once, and all records share it, in time and in memory.
@lru_cache(maxsize=256)
def _who(tenant: str, kind: str, lane: Lane | None) -> Headers:
    pairs = ((TENANT, quoted(tenant, MAX_VALUE)), (TYPE, quoted(kind, MAX_VALUE)), (LANE, lane))
    return tuple((name, text.encode("ascii")) for name, text in pairs if text)


@lru_cache(maxsize=256)
def _what(run: int, catalog: str) -> Headers:
    pairs = ((RUN, str(run)), (CATALOG, quoted(catalog, MAX_VALUE)))
    return tuple((name, text.encode("ascii")) for name, text in pairs if text)


@lru_cache(maxsize=64)
def _hops(hops: int) -> Header:
    return HOPS, b"%d" % hops


def read_job(read: Mapping[str, str], name: str) -> Job:
    """Read the job-scoped headers of our own topics, of the job called `name`."""
    tenant, kind, run, catalog, hops = _told(
        read.get(TENANT), read.get(TYPE), read.get(RUN), read.get(CATALOG), read.get(HOPS)
    )
    conversation, cost, overrides = read.get(CONVERSATION), read.get(COST), read.get(OVERRIDES)
    return Job(
        name,
        tenant,
        kind,
        lane(read.get(LANE)),
        deadline(read.get(DEADLINE)),
        run,
        catalog,
        count(read.get(ACCEPTED_AT), MAX_TIME),
        unquoted(conversation) if conversation else "",
        hops,
        _cost(cost) if cost else 0.0,
        unquoted(overrides) if overrides else "",
    )


@lru_cache(maxsize=256)
def _told(
    tenant: str | None, kind: str | None, run: str | None, catalog: str | None, hops: str | None
) -> tuple[str, str, int, str, int]:
    return unquoted(tenant) or DEFAULT_TENANT, unquoted(kind), count(run), unquoted(catalog), count(hops)


def trace_headers(trace: Trace) -> list[Header]:
    """Spell a span; empty `tracestate` and `baggage` are left out."""
    written: list[Header] = [(TRACEPARENT, trace.traceparent.encode("ascii"))]
    if trace.state:
        written.append((TRACESTATE, trace.state.encode("ascii")))
    if trace.baggage:
        written.append((BAGGAGE, trace.baggage.encode("ascii")))
    return written


def carried(headers: Headers) -> Headers:
    """Pick the headers we do not know, which travel on to children: at most `MAX_CARRIED` bytes, first come first."""
    strange = [header for header in headers if header[0] not in OURS]
    kept: list[Header] = []
    room = MAX_CARRIED
    for name, value in strange:
        if name.startswith(_PREFIXES):
            continue
        room -= len(name.encode("utf-8", "replace")) + len(value or b"") + _FRAMING
        if room < 0:
            break
        kept.append((name, value))
    return tuple(kept)


def public(headers: Headers, *, copy: bool) -> Headers:
    """Drop what only our own topics and their senders may tell; on a `copy` of ours the bookkeeping stays.

    A foreign topic knows nothing of us, so what looks like ours on it, or like a sender's id, was meant for others.
    """
    return without(headers, lambda name: name.startswith(_PREFIXES) and not (copy and name in COPY_SCOPED))


def without(headers: Headers, unwanted: Callable[[str], bool]) -> Headers:
    """Drop headers by name, keeping order, duplicates and bytes of the rest."""
    return tuple(header for header in headers if not unwanted(header[0]))


def quoted(text: str, limit: int | None = None) -> str:
    """Make any text a safe ASCII header value: printable ASCII stays, `%` and the rest become `%`-escapes of UTF-8.

    With a `limit`, in characters of the result, the text is cut after its last whole character that fits.
    """
    if text.isascii() and text.isprintable() and "%" not in text:
        return text[:limit]
    spelt = [_quoted(character) for character in text[:limit]]
    ends = list(accumulate(map(len, spelt)))
    return "".join(spelt if limit is None else spelt[: bisect_right(ends, limit)])


def _quoted(character: str) -> str:
    if _PLAIN.fullmatch(character):
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def unquoted(text: str | None) -> str:
    """Undo `quoted`; a malformed escape stays as it is."""
    if not text or "%" not in text:
        return text or ""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "replace")


def _cost(text: str | None) -> float:
    return float(text) if text and _COST.fullmatch(text) else 0.0

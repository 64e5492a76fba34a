"""Headers of retry and dead-letter copies. Key, value and the original headers stay byte for byte.

The bookkeeping of an earlier copy is replaced, never added to: growth would end in a record too large to write.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pipeline.core import headers as h
from pipeline.core.headers import Origin, Tries
from pipeline.core.record import Header, Headers, Record

MAX_REASON = 1_000
"""The longest reason, or other text of a failure, that is kept, in bytes of its header."""

_VARIABLE = re.compile(
    r"""(?<!\w)'(?:[^'\\]|\\.)*(?:'(?!\w)|$)"""  # quoted; no apostrophe within a word; the end may be cut off
    r"""|"(?:[^"\\]|\\.)*(?:"|$)"""
    r"""|(?<![\w-])[\w-]*\d[\w-]*"""  # numbers, and ids of all kinds: they have a digit somewhere
    r"""|(?<![\w-])[0-9A-Fa-f-]{8,}(?![\w-])"""
)


@dataclass(frozen=True, slots=True)
class Grave:
    """Why a record is dead, for the person who will look at it. `exception` is a type's name."""

    stage: str
    group: str
    code: str
    exception: str
    reason: str
    version: str
    failed_at: float


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a copy waits in a retry tier: how the try before it ended."""

    code: str
    reason: str


def copy_headers(
    record: Record, origin: Origin, tries: Tries, *, now: float, not_before: float | None, cause: Cause | None = None
) -> Headers:
    """Headers of a copy of `record`: the original ones, with fresh bookkeeping.

    One that is to wait and names no `cause` of its own waits on for that of the copy before it.
    """
    # Only a copy stands elsewhere than its original; on an original these headers are somebody's forgery.
    read = h.texts(record.headers) if origin.position != record.position else {}
    fresh: list[Header] = [
        (h.ATTEMPTS, _ascii(tries.attempts)),
        (h.DEFERRALS, _ascii(tries.deferrals)),
        (h.TIMEOUTS, _ascii(tries.timeouts)),
        (h.ORIGINAL, h.quoted(str(origin)).encode("ascii")),
        (h.FIRST_FAILURE, _ascii(h.count(read.get(h.FIRST_FAILURE), h.MAX_TIME) or _milliseconds(now))),
    ]
    if not_before is not None:
        # Rounded up: a millisecond early is early.
        fresh.append((h.NOT_BEFORE, _ascii(-int(-not_before * 1000 // 1))))
        why = cause or Cause(h.unquoted(read.get(h.RETRY_CODE)), h.unquoted(read.get(h.RETRY_REASON)))
        fresh += [(name, _quoted(text)) for name, text in _spelt(why) if text]
    # What a replay has changed stays on its later copies; on an original it is an outsider's wish, and is not granted.
    unwanted = _is_bookkeeping if origin.position != record.position else _is_not_the_senders
    return (*h.without(record.headers, unwanted), *fresh)


def _spelt(cause: Cause) -> tuple[tuple[str, str], ...]:
    return (h.RETRY_CODE, cause.code), (h.RETRY_REASON, cause.reason)


def original(record: Record, origin: Origin) -> Record:
    """Undo `copy_headers`: the record as it first stood, at `origin`."""
    topic, partition, offset = origin.position
    headers = h.without(record.headers, _is_not_the_senders)
    return Record(topic, partition, offset, record.key, record.value, headers, origin.timestamp_ms)


def dead_headers(record: Record, origin: Origin, tries: Tries, grave: Grave) -> Headers:
    """Headers of a dead letter: a copy's, and what a person or a tool needs to judge it and bring it back."""
    topic, partition, offset = origin.position
    told: list[Header] = [
        (f"{h.DEAD}stage", _quoted(grave.stage)),
        (f"{h.DEAD}group", _quoted(grave.group)),
        (f"{h.DEAD}code", _quoted(grave.code)),
        (f"{h.DEAD}exception", _quoted(grave.exception)),
        (f"{h.DEAD}reason", _quoted(grave.reason)),
        (f"{h.DEAD}fingerprint", _ascii(fingerprint(grave))),
        (f"{h.DEAD}at", _ascii(_milliseconds(grave.failed_at))),
        (f"{h.DEAD}version", _quoted(grave.version)),
        (f"{h.X_ORIGINAL}topic", topic.encode("ascii", "replace")),
        (f"{h.X_ORIGINAL}partition", _ascii(partition)),
        (f"{h.X_ORIGINAL}offset", _ascii(offset)),
        (f"{h.X_ORIGINAL}timestamp", _ascii(origin.timestamp_ms)),
    ]
    return (*copy_headers(record, origin, tries, now=grave.failed_at, not_before=None), *told)


def fingerprint(grave: Grave) -> str:
    """Name the kind of failure: equal for failures that differ in numbers, ids and quoted values only."""
    shape = _VARIABLE.sub("#", grave.reason[:MAX_REASON])
    text = "\x00".join((grave.stage, grave.code, grave.exception, shape))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _is_bookkeeping(name: str) -> bool:
    return name in h.COPY_SCOPED or name.startswith((h.DEAD, h.X_ORIGINAL))


def _is_not_the_senders(name: str) -> bool:
    return _is_bookkeeping(name) or name.startswith(h.REPLAY)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _quoted(text: str) -> bytes:
    return h.quoted(text, MAX_REASON).encode("ascii")


def _ascii(value: object) -> bytes:
    return str(value).encode("ascii", "replace")

"""What dead letters of other families tell in their headers: Spring Kafka, Kafka Connect, Kafka Streams.

Spring (`DeadLetterPublishingRecoverer`): `kafka_dlt-*`, numbers as Java's big-endian int and long. Connect (KIP-298):
`__connect.errors.*`, all text. Streams (KIP-1034): `__streams.errors.*`, all text. Whatever stands there, nothing here
raises: what does not read is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.core.headers import MAX_COUNT, MAX_TIME, Origin
from pipeline.core.record import Position

Family = Literal["pipeline", "spring", "connect", "streams", "unknown"]
"""Whose dead letter it is; `unknown` has no header that we know."""

MAX_TEXT = 1_000
"""The longest text of a failure that is read, in characters."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MAX_PARTITION, _MAX_OFFSET = 2**31 - 1, 2**63 - 1
_DIGITS = 20
_BINARY = (4, 8)  # bytes of Java's int and long
_UNPRINTABLE = re.compile(r"[^\S ]+|[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


class _Names(NamedTuple):
    """The headers of one family."""

    topic: str
    partition: str
    offset: str
    exception: tuple[str, ...]
    message: tuple[str, ...]
    timestamp: str = ""
    group: str = ""
    attempts: str = ""


_SPRING, _CONNECT, _STREAMS = "kafka_dlt-", "__connect.errors.", "__streams.errors."
_FAMILIES: Mapping[Family, _Names] = {
    "spring": _Names(
        f"{_SPRING}original-topic",
        f"{_SPRING}original-partition",
        f"{_SPRING}original-offset",
        # The listener's own exception wraps the cause, which is the one that says something.
        (f"{_SPRING}exception-cause-fqcn", f"{_SPRING}exception-fqcn", f"{_SPRING}key-exception-fqcn"),
        (f"{_SPRING}exception-message", f"{_SPRING}key-exception-message"),
        f"{_SPRING}original-timestamp",
        f"{_SPRING}original-consumer-group",
        "retry_topic-attempts",
    ),
    "connect": _Names(
        f"{_CONNECT}topic",
        f"{_CONNECT}partition",
        f"{_CONNECT}offset",
        (f"{_CONNECT}exception.class.name", f"{_CONNECT}class.name"),
        (f"{_CONNECT}exception.message",),
        group=f"{_CONNECT}connector.name",
    ),
    "streams": _Names(
        f"{_STREAMS}topic",
        f"{_STREAMS}partition",
        f"{_STREAMS}offset",
        (f"{_STREAMS}exception",),
        (f"{_STREAMS}message",),
    ),
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a dead letter of another family tells. `origin` is None where it does not tell its place."""

    family: Family
    origin: Origin | None = None
    group: str = ""
    exception: str = ""
    reason: str = ""
    attempts: int = 0


UNKNOWN = Foreign("unknown")


def read_foreign(raw: Mapping[str, bytes | None]) -> Foreign:
    """Read the headers of whichever family they are of; `UNKNOWN` where they are of none."""
    for family, names in _FAMILIES.items():
        known = (names.topic, *names.exception, *names.message)
        if any(raw.get(name) is not None for name in known):
            return Foreign(
                family,
                _origin(raw, names),
                readable(raw.get(names.group)),
                _first(raw, names.exception),
                _first(raw, names.message),
                min(number(raw.get(names.attempts)) or 0, MAX_COUNT),
            )
    return UNKNOWN


def number(value: bytes | None) -> int | None:
    """Read a number that is not negative, spelt in digits or as Java's big-endian int or long; None for junk.

    Four or eight bytes that are all digits are text: as a binary number they would be beyond any partition or offset.
    """
    if not value:
        return None
    if value.isdigit():
        return int(value) if len(value) < _DIGITS else None
    if len(value) in _BINARY:
        found = int.from_bytes(value, "big", signed=True)
        return found if found >= 0 else None
    return None


def readable(value: bytes | None) -> str:
    """Make text for people of any bytes: no control characters, which would steer a terminal, and not too long."""
    if not value:
        return ""
    text = value[: 4 * MAX_TEXT].decode("utf-8", "replace")
    return _UNPRINTABLE.sub(" ", text).strip()[:MAX_TEXT]


def _first(raw: Mapping[str, bytes | None], names: tuple[str, ...]) -> str:
    return next((text for text in (readable(raw.get(name)) for name in names) if text), "")


def _origin(raw: Mapping[str, bytes | None], names: _Names) -> Origin | None:
    topic = readable(raw.get(names.topic))
    partition, offset = number(raw.get(names.partition)), number(raw.get(names.offset))
    if not _TOPIC.fullmatch(topic) or partition is None or offset is None:
        return None
    if partition > _MAX_PARTITION or offset > _MAX_OFFSET:
        return None
    stamp = number(raw.get(names.timestamp))
    return Origin(Position(topic, partition, offset), -1 if stamp is None or stamp > MAX_TIME else stamp)

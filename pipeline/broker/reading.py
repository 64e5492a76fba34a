"""From the client's messages to records: the one place where each record costs something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller
from sys import intern

from confluent_kafka import KafkaError, Message

from pipeline.core import headers as h
from pipeline.core.record import Header, Headers, Record
from pipeline.telemetry import logs

# A header whose name is not UTF-8 (Java cannot write one, C can) makes the client return a broken list *and* leave an
# exception pending. Called as a method, CPython 3.11 does not look, and the exception appears at some later line; this
# way of calling looks.
_headers: Callable[[Message], list[Header] | None] = methodcaller("headers")


# Of these headers there are few: all records hold the same ones. With that a record that waits takes 1.4 KB beyond its
# payload instead of 4.1 (measured), and half as many objects.
_FEW: dict[str, dict[bytes | None, Header]] = {
    name: {}
    for name in (
        *(h.CE_SPECVERSION, h.CE_SOURCE, h.CE_TYPE, h.CONTENT_TYPE),
        *(h.TENANT, h.TYPE, h.LANE, h.RUN, h.CATALOG, h.HOPS, h.COST, h.OUTPUT),
    )
}
FEW_VALUES = 256
"""The most values of one name that are kept, and the most bytes of one: senders choose some of them."""
_NAMES = {name: name for name in sorted(h.OURS)}


class _Draft:
    """A record in the making: the slots of `Record` without its frozen `__init__`.

    It becomes a `Record` by an assignment to `__class__`: 0.7 us for each record where the frozen one costs 1.8.
    """

    __slots__ = ("headers", "key", "offset", "partition", "timestamp_ms", "topic", "value")

    topic: str
    partition: int | None
    offset: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


def records_of(
    messages: Sequence[Message], error: Callable[[KafkaError, Message], None], *, kept: bool = True
) -> list[Record]:
    """Turn messages into records; those that are errors go to `error`. A message can be read once only.

    Records that are not `kept` but looked at and dropped need not share what they hold: a third less time for each.

    One long function on purpose: each call in here is paid for every record.
    """
    records: list[Record] = []
    new = _Draft.__new__
    for message in messages:
        failure = message.error()
        if failure is not None:
            error(failure, message)
            continue
        draft = new(_Draft)
        draft.topic = intern(message.topic())  # type: ignore[arg-type]  # only an error has no topic
        draft.partition = message.partition()
        draft.offset = message.offset()
        draft.key = message.key()
        draft.value = message.value()
        draft.timestamp_ms = message.timestamp()[1]
        try:
            headers = _headers(message)
        except SystemError:
            headers = _unreadable(draft)
        draft.headers = () if not headers else _shared(headers) if kept else tuple(headers)
        draft.__class__ = Record  # type: ignore[assignment]  # both have the same slots
        records.append(draft)  # type: ignore[arg-type]  # it is a Record now
    return records


def _shared(headers: list[Header]) -> Headers:
    """Hold what other records hold too but once."""
    kept = []
    for header in headers:
        name, value = header
        few = _FEW.get(name)
        if few is None:
            kept.append((_NAMES.get(name, name), value))
        else:
            kept.append(few.get(value) or _keep(few, _NAMES[name], value))
    return tuple(kept)


def _keep(few: dict[bytes | None, Header], name: str, value: bytes | None) -> Header:
    header = name, value
    if len(few) < FEW_VALUES and len(value or b"") <= FEW_VALUES:
        few[value] = header
    return header


def _unreadable(record: _Draft) -> list[Header]:
    logs.get().warning(
        f"{record.topic}/{record.partition}/{record.offset} has a header whose name is not UTF-8: all its headers are"
        " passed over",
        action="headers_unreadable",
    )
    return []

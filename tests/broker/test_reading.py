"""From messages to records."""

from __future__ import annotations

import copy
import pickle

import pytest
from confluent_kafka import KafkaError, Message

from pipeline.broker import reading
from pipeline.core.record import Position, Record


def message(**fields: object) -> Message:
    """A message as the client makes it."""
    return Message(**{"topic": "t", "partition": 3, "offset": 7, "timestamp": (1, 1234), **fields})  # type: ignore[arg-type]  # any field


def ignored(_error: KafkaError, _message: Message) -> None:
    """Fail: no error is expected."""
    raise AssertionError("unexpected error")


def test_records_are_records() -> None:
    """A record that was read is equal to one that was made, is frozen, and can be copied and pickled."""
    (record,) = reading.records_of([message(key=b"k", value=b"v", headers=[("a", b"1"), ("a", None)])], ignored)
    made = Record("t", 3, 7, b"k", b"v", (("a", b"1"), ("a", None)), 1234)
    assert type(record) is Record
    assert record == made
    assert hash(record) == hash(made)
    assert record.position == Position("t", 3, 7)
    assert copy.copy(record) == pickle.loads(pickle.dumps(record)) == made
    with pytest.raises(AttributeError):
        record.offset = 8  # type: ignore[misc]  # that it is frozen is the point


def test_records_that_are_not_kept_are_the_same() -> None:
    """They only do not share what they hold with others."""
    spelt = [("pipeline-tenant", b"acme"), ("a", None), ("a", b"1")]
    (kept,) = reading.records_of([message(value=b"v", headers=spelt)], ignored)
    (dropped,) = reading.records_of([message(value=b"v", headers=spelt)], ignored, kept=False)
    assert kept == dropped


def test_same_slots() -> None:
    """The draft has exactly the slots of a record: else no draft could become one."""
    assert set(reading._Draft.__slots__) == set(Record.__slots__)


def test_topics_are_shared() -> None:
    """A thousand records of a topic hold its name once."""
    first, second = reading.records_of(
        [message(topic="".join(["a", ".b"])), message(topic="".join(["a", ".b"]))], ignored
    )
    assert first.topic is second.topic


def test_headers_of_which_there_are_few_are_shared() -> None:
    """Two records hold the same header of a tenant, the same name of an id, and their own values of it."""

    def spelt(tenant: str, name: str) -> list[tuple[str, bytes | None]]:
        return [("".join(["pipeline-", "tenant"]), tenant.encode()), ("".join(["ce", "_id"]), name.encode())]

    first, second = reading.records_of([message(headers=spelt("a", "1")), message(headers=spelt("a", "2"))], ignored)
    assert first.headers == (("pipeline-tenant", b"a"), ("ce_id", b"1"))
    assert second.headers == (("pipeline-tenant", b"a"), ("ce_id", b"2"))
    assert first.headers[0] is second.headers[0]
    assert first.headers[1][0] is second.headers[1][0]


def test_senders_cannot_fill_what_is_shared() -> None:
    """Values without end, or a long one, are read and not kept."""
    many = [b"tenant %d" % number for number in range(2 * reading.FEW_VALUES)] + [b"x" * 4096]
    records = reading.records_of([message(headers=[("pipeline-tenant", value)]) for value in many], ignored)
    assert [record.headers for record in records] == [(("pipeline-tenant", value),) for value in many]
    kept = reading._FEW["pipeline-tenant"]
    assert len(kept) <= reading.FEW_VALUES
    assert many[-1] not in kept


def test_errors_go_elsewhere() -> None:
    """An error in the place of a message does not become a record."""
    errors: list[tuple[int, str | None]] = []
    failed = message(error=KafkaError(KafkaError._PARTITION_EOF))
    records = reading.records_of(
        [message(), failed, message(offset=8)], lambda error, one: errors.append((error.code(), one.topic()))
    )
    assert [record.offset for record in records] == [7, 8]
    assert errors == [(KafkaError._PARTITION_EOF, "t")]


def test_headers_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client cannot read a message's headers the record comes without them, and the others are whole."""

    def unreadable(one: Message) -> list[tuple[str, bytes | None]] | None:
        if one.offset() == 8:
            raise SystemError("returned a result with an exception set")
        return [("a", b"1")]

    monkeypatch.setattr(reading, "_headers", unreadable)
    records = reading.records_of([message(), message(offset=8, value=b"v"), message(offset=9)], ignored)
    assert [record.headers for record in records] == [(("a", b"1"),), (), (("a", b"1"),)]
    assert records[1].value == b"v"

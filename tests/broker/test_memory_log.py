"""A partition in memory: transactions hide what they write, hold readers back, and leave markers."""

from __future__ import annotations

from pipeline.broker.memory_log import Log
from pipeline.core.record import Partition, Record

NAME = Partition("t", 0)


def write(log: Log, text: str, transaction: object = None) -> None:
    """Add a record."""
    log.append(Record(*NAME, log.high, None, text.encode()), transaction)


def seen(log: Log, offset: int = 0, limit: int = 100) -> tuple[list[bytes | None], int]:
    """What a reader is given, and where it goes on."""
    records, following = log.scan(offset, limit)
    return [record.value for record in records], following


def test_readers_stop_at_an_open_transaction() -> None:
    """Nothing from the first record of the oldest open transaction on is read, whoever wrote it."""
    log = Log()
    write(log, "a")
    write(log, "b", "one")
    write(log, "c")
    assert (log.stable, seen(log)) == (1, ([b"a"], 1))
    assert [record.value for record in log.visible()] == [b"a", b"c"]
    log.end("one", NAME, committed=True)
    assert (log.stable, log.high, seen(log)) == (4, 4, ([b"a", b"b", b"c"], 4))


def test_an_aborted_transaction_is_never_seen() -> None:
    """Its records and its marker keep their offsets, and readers step over them, whatever their limit."""
    log = Log()
    write(log, "a", "one")
    write(log, "b")
    log.end("one", NAME, committed=False)
    log.end("one", NAME, committed=True)
    assert (seen(log, 0, 1), seen(log, 2, 1)) == (([b"b"], 2), ([], 3))
    assert [record.value for record in log.visible()] == [b"b"]


def test_a_log_without_transactions_is_plain() -> None:
    """Ending a transaction that has written nothing here leaves no marker, and trimming keeps the offsets."""
    log = Log()
    write(log, "a")
    write(log, "b")
    log.end("one", NAME, committed=True)
    assert (log.transactional, log.high) == (False, 2)
    log.trim(1)
    assert (log.low, seen(log, 1)) == (1, ([b"b"], 2))

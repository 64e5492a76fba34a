"""The ledger of a run finds each kind of broken promise, and none where all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core import headers as h
from pipeline.core.job import child_id
from pipeline.core.offset_map import Progress, spell
from pipeline.core.payloads import Failure, JobPayload
from pipeline.core.record import Commit, Header, Outgoing, Partition, Position
from pipeline.core.retry import RetryPolicy
from pipeline.core.stage import Stage, Topic
from pipeline.devkit.clock import EPOCH
from pipeline.devkit.crash import invariants
from pipeline.devkit.crash.chart import chart
from pipeline.devkit.crash.ends import EARLY, IN_PLACE, ONCE
from pipeline.devkit.crash.ledger import Ledger
from pipeline.devkit.crash.network import Host
from pipeline.devkit.crash.outside import Call
from pipeline.devkit.crash.scheduler import Process
from pipeline.devkit.crash.written import Written

IN, OUT = Topic("in", JobPayload), Topic("out", JobPayload)
STAGE = Stage(name="work", sources=(IN,), output=OUT, handler=lambda: None)  # type: ignore[arg-type,return-value]  # never run
TIER = "t.work.retry.10s"


class Book:
    """A ledger, and what stands in its logs; `policy` is the stage's."""

    def __init__(self, **policy: Any) -> None:
        self.ledger = Ledger(chart([replace(STAGE, **policy)], "t"))
        self._ends: dict[tuple[str, int], int] = {}

    def put(
        self,
        at: float,
        topic: str,
        *headers: Header,
        partition: int = 0,
        key: bytes = b"k",
        value: bytes = b"v",
        transaction: object = None,
    ) -> Written:
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        record = Outgoing(topic, key, value, headers, partition)
        return self.ledger.written(at, "p", record, Position(topic, partition, offset), transaction=transaction)

    def source(self, at: float = 0.0, name: str = "a", partition: int = 0) -> Written:
        return self.put(at, "t.in", (h.CE_ID, name.encode()), (h.CE_SUBJECT, b"job"), partition=partition)

    def output(self, at: float, source: Written, name: str = "a.out", **record: object) -> Written:
        told: tuple[Header, ...] = ((h.CE_ID, name.encode()), (h.SOURCE, str(source.position).encode()))
        return self.put(at, "t.out", *told, **record)  # type: ignore[arg-type]  # as `put` takes them

    def copy(
        self, at: float, source: Written, not_before: float = 0.0, topic: str = TIER, value: bytes = b"v"
    ) -> Written:
        told: list[Header] = [(h.ORIGINAL, f"{source.root}/1000".encode()), (h.CE_ID, source.id.encode())]
        if not_before:
            told.append((h.NOT_BEFORE, str(int((EPOCH + not_before) * 1000)).encode()))
        return self.put(at, TIER, *told, value=value)

    def commit(self, at: float, offset: int, *beyond: int, topic: str = "t.in") -> str:
        ranges = tuple(range(one, one + 1) for one in beyond)
        commit = Commit(offset, spell(offset, Progress(ranges)))
        self.ledger.committed(at, "t.work", {Partition(topic, 0): commit})
        return self.rule

    @property
    def rule(self) -> str:
        return self.ledger.broken.rule if self.ledger.broken else ""


def test_what_is_answered_may_be_committed() -> None:
    """An output, or a copy in a tier, is an answer: the offset below it may be committed, with a map beyond it."""
    book = Book()
    first, second, third = (book.source(name=name) for name in "abc")
    book.output(1.0, first)
    book.output(1.0, third, "c.out")
    assert book.commit(1.0, 1, 2) == ""
    book.copy(2.0, second)
    assert book.commit(2.0, 3) == ""


def test_what_is_not_answered_may_not_be_committed() -> None:
    """Neither below the frontier nor in the map."""
    below, beyond = Book(), Book()
    for book in (below, beyond):
        book.output(1.0, book.source(name="a"))
        book.source(name="b")
    assert below.commit(1.0, 2) == "nothing is committed before it is answered"
    assert below.ledger.broken is not None
    assert below.ledger.broken.about == {"job", "t.in/0"}
    assert beyond.commit(1.0, 0, 1) == "nothing is committed before it is answered"


def test_commits_only_grow() -> None:
    """A commit that takes an offset back, or forgets what the map had, is a stale owner's."""
    for stale in ((0,), (1,)):
        book = Book()
        for name in "abc":
            book.output(1.0, book.source(name=name), f"{name}.out")
        assert book.commit(1.0, 1, 2) == ""
        assert book.commit(1.0, *stale) == "commits only grow"


def test_commits_of_what_is_not_there() -> None:
    """Beyond the end, of a topic that the stage does not read, or with a map that does not read."""
    assert Book().commit(0.0, 1) == "commit"
    assert Book().commit(0.0, 0, 3) == "commit"
    strange, torn = Book(), Book()
    assert strange.commit(0.0, 0, topic="t.out") == "commit"
    torn.source()
    torn.ledger.committed(0.0, "t.work", {Partition("t.in", 0): Commit(0, "lep1:zno")})
    assert torn.rule == "commit"


def test_tiers_are_never_early() -> None:
    """A copy may be settled when its tier's delay is over, and be handled when its own time has come."""
    for at, not_before, rule in (
        (11.0, 0.0, ""),
        (10.5, 0.0, "tiers are never early"),
        (12.0, 15.0, "tiers are never early"),
    ):
        book = Book()
        source = book.source()
        book.copy(1.0, source, not_before)
        book.output(at, source)
        assert book.commit(at, 1, topic=TIER) == rule


def test_a_copy_may_move_on_before_its_time() -> None:
    """It goes through the tier again: that settles it and handles nothing."""
    book = Book()
    source = book.source()
    book.copy(1.0, source, 25.0)
    book.copy(11.0, source, 25.0)
    assert book.commit(11.0, 1, topic=TIER) == ""


def test_partition_numbers_are_kept() -> None:
    """An output in another partition breaks the order of its key."""
    book = Book()
    book.output(1.0, book.source(partition=1), partition=0)
    assert book.rule == "partition"


def test_copies_are_byte_for_byte() -> None:
    """A copy with another value is none."""
    book = Book()
    book.copy(1.0, book.source(), value=b"other")
    assert book.rule == "copy"


def test_equal_ids_have_equal_values() -> None:
    """Written again it says the same; anything else is another event."""
    book = Book()
    source = book.source()
    book.output(1.0, source)
    book.output(2.0, source)
    assert book.rule == ""
    book.output(3.0, source, value=b"other")
    assert book.rule == "equal ids, equal values"


def test_only_the_first_broken_invariant_is_kept() -> None:
    """What follows from it would hide it."""
    book = Book()
    book.ledger.break_("one", "first")
    book.ledger.break_("two", "second")
    assert book.rule == "one"


def test_order_is_that_of_the_first_occurrences() -> None:
    """Duplicates may follow in any order; an overtaken record may not, unless it went through a tier."""
    fine, broken, retried = Book(), Book(), Book()
    for book in (fine, broken, retried):
        first, second = book.source(name="a"), book.source(name="b")
        if book is retried:
            book.copy(1.0, first)
        for source in (first, second, first) if book is fine else (second, first):
            book.output(2.0, source, f"{source.id}.out")
        invariants.order(book.ledger)
    assert (fine.rule, broken.rule, retried.rule) == ("", "order per key", "")


def test_a_call_after_its_answer() -> None:
    """Only who was troubled since the answer was written may have missed it; before it is there, anybody may call."""
    paid = "nothing is paid for twice"
    for began, troubled, rule in ((4.0, 0.5, paid), (4.0, 3.0, ""), (2.5, 0.5, "")):
        book = Book()
        source = book.source(1.0)
        told = ((h.CE_ID, b"out"), (h.SOURCE, str(source.position).encode()), (h.PARENT, b"a"))
        book.put(2.0, "t.out", *told)
        invariants.calls(book.ledger, [Call("a", "p", began, began + 1.0)], [(troubled, "p"), (3.0, "q")])
        assert book.rule == rule


def test_an_event_in_two_partitions_is_paid_for_in_each() -> None:
    """Where topics grew, its sender's repetition stands in another one; a third call has no reason."""
    for calls, rule in ((1, ""), (2, "nothing is paid for twice")):
        book = Book()
        source = book.source(1.0)
        book.source(3.0, partition=1)
        told = ((h.CE_ID, b"out"), (h.SOURCE, str(source.position).encode()), (h.PARENT, b"a"))
        book.put(2.0, "t.out", *told)
        invariants.calls(book.ledger, [Call("a", "p", 4.0, 5.0)] * calls, [])
        assert book.rule == rule


def test_failures_tell_their_time() -> None:
    """The one value that differs when an event is written again."""
    book = Book()
    source = book.source()
    for at in (1, 2):
        failure = Failure(stage="work", code="c", reason="r", failed_at_ms=at)
        told = ((h.CE_ID, b"f"), (h.SOURCE, str(source.position).encode()))
        book.put(at, "t.failures", *told, value=failure.model_dump_json().encode())
    assert book.rule == ""


TWICE = "nothing is done twice without a reason"


@pytest.mark.parametrize("delivery", ["at most once", "exactly once"])
def test_an_end_that_is_to_be_there_once(delivery: str) -> None:
    """Neither the same output again nor another end of the same record; another record of its event has its own."""
    for name in ("a.out", "other"):
        book = Book(delivery=delivery)
        first, second = book.source(), book.source()
        book.output(1.0, first)
        book.output(1.0, second)
        assert book.rule == ""
        book.put(2.0, "t.failures" if name == "other" else "t.out", *named(name, first))
        assert book.rule == ONCE


def named(name: str, source: Written) -> tuple[Header, ...]:
    """The headers of what came of a record."""
    return (h.CE_ID, name.encode()), (h.SOURCE, str(source.position).encode()), (h.PARENT, b"a")


def test_what_is_done_twice_has_a_reason() -> None:
    """At least once: something has happened between the arrival of a record and its second end."""
    for troubles, rule in (([2.0], ""), ([0.5, 9.0], TWICE), ([], TWICE)):
        book = Book()
        source = book.source(1.0)
        book.output(1.5, source)
        book.output(3.0, source)
        invariants.twice(book.ledger, troubles)
        assert book.rule == rule


def test_a_transaction_is_there_from_its_commit_on() -> None:
    """Its records answer nothing before, and never where it was aborted; markers and holes count as settled."""
    book = Book(delivery="exactly once")
    source = book.source()
    book.put(1.0, "t.out", *named("a.out", source), transaction="lost")
    book.ledger.ended(1.0, "lost", committed=False)
    assert (book.ledger.of("t.out"), book.ledger.answered(source)) == ([], False)
    book._ends["t.out", 0] += 1
    made = book.put(2.0, "t.out", *named("a.out", source), transaction="kept")
    assert (book.ledger.of("t.out"), book.ledger.answered(source)) == ([], False)
    book.ledger.ended(2.0, "kept", committed=True)
    assert (book.ledger.of("t.out"), book.ledger.answered(source)) == ([made], True)
    assert book.commit(2.0, 1) == ""


def test_what_is_not_committed_may_not_be_settled() -> None:
    """Whoever commits the offset of a record of an open transaction has read what may never be there."""
    book = Book()
    book.put(1.0, "t.in", (h.CE_ID, b"a"), transaction="open")
    assert book.commit(1.0, 1) == "what is not committed is not read"


def test_early_commits_are_judged_by_what_is_written() -> None:
    """At most once: offsets say nothing, an end before its tier's delay is over does; but for cancelled jobs."""
    for at, rule in ((11.5, ""), (5.0, EARLY)):
        book = Book(delivery="at most once")
        source = book.source()
        book.copy(1.0, source)
        assert book.commit(1.0, 1) == ""
        book.output(at, source)
        assert book.rule == rule
    freed = Book(delivery="at most once")
    freed.ledger.cancelled.add("job")
    source = freed.source()
    freed.copy(1.0, source)
    freed.output(2.0, source)
    assert freed.rule == ""


def test_retries_in_place_leave_no_copies() -> None:
    """A copy in a tier is one that has given up its place."""
    book = Book(retry=RetryPolicy((1.0,), in_place=True))
    book.copy(1.0, book.source())
    assert book.rule == IN_PLACE


def test_what_may_be_lost() -> None:
    """At most once: what a process had taken that fell, and nothing else."""
    for fell, rule in ((True, ""), (False, "nothing is lost without a crash")):
        book = Book(delivery="at most once")
        host = Host(Process("p"), fell=fell)
        host.taken.add(book.source().position)
        book.output(1.0, book.source(name="b"), "b.out")
        assert invariants.losses(book.ledger, [host]) == ({"job"} if fell else set())
        assert book.rule == rule


def test_keys_move_when_a_topic_grows() -> None:
    """A stage that repartitions writes a key to one partition, until its topic has more of them."""
    book = Book(repartition=True)
    sources = [book.source(name=name) for name in "abc"]
    book.output(1.0, sources[0], "1", partition=0)
    book.ledger.grew(2.0, "t.out", 3)
    book.output(3.0, sources[1], "2", partition=2)
    assert book.rule == ""
    book.output(4.0, sources[2], "3", partition=0)
    assert book.rule == "partition"


def test_what_was_under_way_when_its_topic_grew_chose_its_partition_before() -> None:
    """A transaction that is committed after the growth holds what was written before it."""
    book = Book(repartition=True, delivery="exactly once")
    sources = [book.source(name=name) for name in "ab"]
    book.output(1.0, sources[0], "1", partition=0, transaction="old")
    book.ledger.grew(2.0, "t.out", 3)
    book.ledger.ended(3.0, "old", committed=True)
    book.output(4.0, sources[1], "2", partition=2)
    assert book.rule == ""


def test_a_failed_record_has_no_place_in_its_key() -> None:
    """Its next owner ended it by a failure: what the owner before, who stood still, makes of it later may be late."""
    book = Book()
    first, second = book.source(name="a"), book.source(name="b")
    failure = child_id(first.id, "work.failure", 0, 0)
    book.put(1.0, "t.failures", *named(failure, first))
    book.output(2.0, second, "b.out")
    book.output(3.0, first, "a.out")
    invariants.order(book.ledger)
    assert book.rule == ""

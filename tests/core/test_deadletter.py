"""Retry copies and dead letters: the original byte for byte, fresh bookkeeping, and no growth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.deadletter import MAX_REASON, Cause, Grave, copy_headers, dead_headers, fingerprint, original
from pipeline.core.headers import Origin, Tries
from pipeline.core.record import Header, Headers, Position, Record
from tests.core.strategies import KNOWN, NOW, few, hostile_headers, records, texts, tries

BOOKKEEPING = {*h.COPY_SCOPED, *(name for name in KNOWN if name.startswith((h.DEAD, h.X_ORIGINAL, h.REPLAY)))}
GRAVE = Grave("infer", "pipeline.infer", "unexpected", "KeyError", "KeyError: 'x'", "0.1.0", failed_at=NOW)
ORIGINAL = Record("pipeline.prompts", 3, 42, b"k\xff", b"\x00v", (("app", None), ("app", b"\xff")), 1_700_000_000_000)


def _origin(record: Record) -> Origin:
    return Origin(record.position, record.timestamp_ms)


def _own(headers: Headers) -> tuple[Header, ...]:
    """What of a record's headers is neither a copy's bookkeeping nor, as on an original, a forged wish of a replay."""
    return tuple(header for header in headers if header[0] not in BOOKKEEPING)


# ------------------------------------------------------------------------------------------------ retry copies
def test_a_copy_tells_its_way_back() -> None:
    """The original headers come first, then tries, the first position, the first failure and the time to wait for."""
    headers = copy_headers(ORIGINAL, _origin(ORIGINAL), Tries(1, 2, 3), now=NOW, not_before=NOW + 10)
    fresh = {
        "pipeline-attempts": b"1",
        "pipeline-deferrals": b"2",
        "pipeline-timeouts": b"3",
        "pipeline-original": b"pipeline.prompts/3/42/1700000000000",
        "pipeline-first-failure": b"1800000000000",
        "pipeline-not-before": b"1800000010000",
    }
    assert ORIGINAL.headers == headers[:2]
    assert fresh == dict(headers[2:])


@few
@given(records(), tries, st.none() | st.floats(0, 1e10))
def test_the_original_headers_stay_byte_for_byte(record: Record, counted: Tries, not_before: float | None) -> None:
    """Order, duplicates, nulls and bytes of everything that is not a copy's bookkeeping are kept; the rest is ours."""
    headers = copy_headers(record, _origin(record), counted, now=NOW, not_before=not_before)
    assert _own(record.headers) == _own(headers) == headers[: len(_own(record.headers))]
    read = h.texts(headers[len(_own(record.headers)) :])
    assert counted == h.tries(read)
    assert (not_before is None) == (h.NOT_BEFORE not in read)


@few
@given(records(), tries)
def test_a_copy_can_be_undone(record: Record, counted: Tries) -> None:
    """From a copy, and from a dead letter: the record as it first stood, but for what looks like our bookkeeping."""
    origin = _origin(record)
    first = replace(record, headers=_own(record.headers))
    for headers in (
        copy_headers(record, origin, counted, now=NOW, not_before=NOW),
        dead_headers(record, origin, counted, GRAVE),
    ):
        copy = Record("p.work.dlq", 0, 9, record.key, record.value, headers, 5)
        assert first == original(copy, h.origin(copy, h.texts(headers), copy=True))


@given(st.floats(0, 1e10))
def test_a_time_to_wait_for_is_never_rounded_down(not_before: float) -> None:
    """A millisecond early is early."""
    read = h.texts(copy_headers(ORIGINAL, _origin(ORIGINAL), Tries(), now=NOW, not_before=not_before))
    assert 0 <= h.count(read[h.NOT_BEFORE], h.MAX_TIME) / 1000 - not_before < 0.0011


def test_the_first_failure_is_kept() -> None:
    """A copy of a copy remembers when it all began; the first copy begins it."""
    first = copy_headers(ORIGINAL, _origin(ORIGINAL), Tries(1), now=NOW, not_before=NOW)
    copy = Record("tier", 0, 0, ORIGINAL.key, ORIGINAL.value, first)
    second = copy_headers(copy, _origin(ORIGINAL), Tries(2), now=NOW + 60, not_before=NOW)
    assert ("1800000000000", "1800000000000") == (h.texts(first)[h.FIRST_FAILURE], h.texts(second)[h.FIRST_FAILURE])


def test_a_copy_says_why_it_waits_and_goes_on_saying_so() -> None:
    """By the code and the reason of the last try, as safe and as short as a header is; a next try's replace them."""
    waiting = partial(copy_headers, now=NOW, not_before=NOW)
    first = waiting(ORIGINAL, _origin(ORIGINAL), Tries(1), cause=Cause("no_connection", "caf\xe9 " * 999))
    copy = Record("tier", 0, 0, ORIGINAL.key, ORIGINAL.value, first)
    moved = waiting(copy, _origin(ORIGINAL), Tries(1))
    for headers in (first, moved):
        read = h.texts(headers)
        assert read[h.RETRY_CODE] == "no_connection"
        assert len(read[h.RETRY_REASON]) <= MAX_REASON
        assert h.unquoted(read[h.RETRY_REASON]).startswith("caf\xe9 caf\xe9")
    again = waiting(copy, _origin(ORIGINAL), Tries(2), cause=Cause("late", "too late"))
    assert ("late", "too late") == (h.texts(again)[h.RETRY_CODE], h.texts(again)[h.RETRY_REASON])
    dead = h.texts(dead_headers(copy, _origin(ORIGINAL), Tries(3), GRAVE))
    assert not {h.RETRY_CODE, h.RETRY_REASON} & dead.keys()


def test_a_sender_cannot_forge_why_a_copy_waits() -> None:
    """A record that stands where it first stood is no copy: what it says of a wait is not handed on."""
    forged = replace(ORIGINAL, headers=((h.RETRY_CODE, b"mine"), (h.RETRY_REASON, b"all mine")))
    written = h.texts(copy_headers(forged, _origin(forged), Tries(), now=NOW, not_before=NOW))
    assert not {h.RETRY_CODE, h.RETRY_REASON} & written.keys()


@few
@given(hostile_headers)
def test_a_sender_cannot_forge_the_first_failure(headers: Headers) -> None:
    """A record that stands where it first stood is no copy, whatever its headers claim."""
    forged = replace(ORIGINAL, headers=(*headers, (h.ORIGINAL, b"t/0/1/2"), (h.FIRST_FAILURE, b"1")))
    written = copy_headers(forged, _origin(forged), Tries(), now=NOW, not_before=None)
    assert ["1800000000000"] == [value.decode() for name, value in written if name == h.FIRST_FAILURE and value]


@pytest.mark.parametrize("junk", [b"soon", b"", b"-5", b"\xff", None])
def test_an_unreadable_first_failure_begins_anew(junk: bytes | None) -> None:
    """What cannot be read is not passed on: the next copy tells a time again."""
    copy = Record("tier", 0, 0, None, b"", ((h.FIRST_FAILURE, junk),))
    headers = copy_headers(copy, _origin(ORIGINAL), Tries(1), now=NOW, not_before=None)
    assert "1800000000000" == h.texts(headers)[h.FIRST_FAILURE]


# ------------------------------------------------------------------------------------------------ dead letters
def test_a_dead_letter_tells_a_person_what_happened() -> None:
    """Stage, group, reason, exception, fingerprint, times, version, and the first position for other people's tools."""
    headers = dead_headers(ORIGINAL, _origin(ORIGINAL), Tries(3, 1, 2), GRAVE)
    told = {
        "pipeline-attempts": b"3",
        "pipeline-deferrals": b"1",
        "pipeline-timeouts": b"2",
        "pipeline-original": b"pipeline.prompts/3/42/1700000000000",
        "pipeline-first-failure": b"1800000000000",
        "pipeline-dead-stage": b"infer",
        "pipeline-dead-group": b"pipeline.infer",
        "pipeline-dead-code": b"unexpected",
        "pipeline-dead-exception": b"KeyError",
        "pipeline-dead-reason": b"KeyError: 'x'",
        "pipeline-dead-fingerprint": fingerprint(GRAVE).encode(),
        "pipeline-dead-at": b"1800000000000",
        "pipeline-dead-version": b"0.1.0",
        "x-original-topic": b"pipeline.prompts",
        "x-original-partition": b"3",
        "x-original-offset": b"42",
        "x-original-timestamp": b"1700000000000",
    }
    assert ORIGINAL.headers == headers[:2]
    assert told == dict(headers[2:])


@few
@given(
    records(), tries, st.builds(Grave, texts, texts, texts, texts, st.text(max_size=3000), texts, st.floats(0, 1e10))
)
def test_any_grave_can_be_written_and_read(record: Record, counted: Tries, grave: Grave) -> None:
    """Whatever text a failure brings along, each header is there once, in ASCII, and short enough to be read again."""
    headers = dead_headers(record, _origin(record), counted, grave)
    fresh = headers[len(_own(record.headers)) :]
    assert len(fresh) == len(dict(fresh)) == len(h.texts(fresh))
    assert _own(record.headers) == headers[: -len(fresh)]


@few
@given(st.text(max_size=3000))
def test_a_reason_is_cut_between_characters(reason: str) -> None:
    """The kept reason is within its limit, and reads as the beginning of the whole."""
    read = h.texts(dead_headers(ORIGINAL, _origin(ORIGINAL), Tries(), replace(GRAVE, reason=reason)))
    kept = read["pipeline-dead-reason"]
    assert len(kept) <= MAX_REASON
    assert reason.startswith(h.unquoted(kept))


@few
@given(hostile_headers)
def test_nothing_grows_over_a_hundred_copies(headers: Headers) -> None:
    """However often a record is retried, buried and replayed, its headers stay as many and as long as at first."""
    record, sizes = replace(ORIGINAL, headers=headers), set[tuple[int, int]]()
    origin = _origin(record)
    for number in range(100):
        dead = dead_headers(record, origin, Tries(3), GRAVE)
        sizes.add((len(dead), sum(len(name) + len(value or b"") for name, value in dead)))
        copied = copy_headers(replace(record, headers=dead), origin, Tries(3), now=NOW, not_before=NOW)
        record = Record("tier", 0, number, record.key, record.value, copied)
    assert 1 == len(sizes)
    assert _own(headers) == _own(record.headers)
    assert (ORIGINAL.key, ORIGINAL.value) == (record.key, record.value)


# ------------------------------------------------------------------------------------------------ fingerprints
@pytest.mark.parametrize(
    "one, other",
    [
        ("line 12 of 40", "line 7 of 9"),
        ("no key 'a b'", "no key 'c'"),
        ('no key "it\'s"', 'no key "b"'),
        (r"no key 'a\'b'", "no key 'c'"),
        ("the client's key 'a' is bad", "the client's key 'b' is bad"),
        ("job 0af76519-16cd-43dd-8448-eb211c80319c", "job 00f067aa-0ba9-02b7-4bf9-2f3577b34da6"),
        ("job 0AF76519-16CD-43DD-8448-EB211C80319C", "job abcdefab-abcd-abcd-abcd-abcdefabcdef"),
        ("request req_011CSHoEeqs5C35K", "request req_99xyzAbcDeFgHiJk"),
        ("cannot read 'aaa", "cannot read 'bbbbbb"),
        ("took 0.53 s", "took 12.1 s"),
    ],
)
def test_failures_of_one_kind_have_one_fingerprint(one: str, other: str) -> None:
    """Numbers, ids, and quoted values, also those whose end was cut off, do not make another kind of failure."""
    assert fingerprint(replace(GRAVE, reason=one)) == fingerprint(replace(GRAVE, reason=other))


@pytest.mark.parametrize(
    "other",
    [
        replace(GRAVE, stage="retrieve"),
        replace(GRAVE, code="timeout"),
        replace(GRAVE, exception="ValueError"),
        replace(GRAVE, reason="no such key: 'x'"),
    ],
)
def test_failures_of_different_kinds_differ(other: Grave) -> None:
    """Stage, code, exception and the words of the reason tell kinds apart."""
    assert fingerprint(GRAVE) != fingerprint(other)


def test_words_are_no_ids() -> None:
    """Apostrophes within words quote nothing, and a word of letters only is told from another."""
    reasons = ["can't read, won't retry", "can't write, won't retry", "the added facade", "the other facade"]
    reasons += ["the worker's queue is full", "the worker's disk is gone"]
    assert 6 == len({fingerprint(replace(GRAVE, reason=reason)) for reason in reasons})


def test_when_where_and_by_whom_do_not_matter() -> None:
    """The same failure at another time, in another version or group is the same kind."""
    later = replace(GRAVE, failed_at=NOW + 1, version="0.2.0", group="other.infer")
    assert fingerprint(GRAVE) == fingerprint(later)


@given(st.text(max_size=2000))
def test_any_reason_has_a_fingerprint(reason: str) -> None:
    """Sixteen hexadecimal digits, whatever the text; what is behind the kept length does not matter."""
    name = fingerprint(replace(GRAVE, reason=reason))
    assert (16, name) == (len(name), fingerprint(replace(GRAVE, reason=reason[:MAX_REASON])))
    assert int(name, 16) >= 0


@pytest.mark.parametrize("reason", ["-" * 1000, "a-" * 500, "'" * 1000, "'a" * 500, '"\\' * 500, "a" * 1000, "\ud800"])
def test_no_reason_is_costly(reason: str) -> None:
    """Text made to let patterns backtrack, or that is no text, has a fingerprint like any other."""
    assert 16 == len(fingerprint(replace(GRAVE, reason=reason * 1000)))


def test_a_position_of_another_topic_is_kept() -> None:
    """A dead letter of a copy names the first position, not the tier's."""
    copy = Record("pipeline.infer.retry.10s", 0, 7, None, b"")
    headers = dict(dead_headers(copy, Origin(Position("source", 1, 2), 3), Tries(3), GRAVE))
    told = [headers[f"x-original-{name}"] for name in ("topic", "partition", "offset", "timestamp")]
    assert [b"source", b"1", b"2", b"3"] == told

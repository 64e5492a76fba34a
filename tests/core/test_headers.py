"""Headers as values: how each is spelt and read, and that no bytes whatever can upset the reading."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import headers as h
from pipeline.core.headers import Origin, Tries
from pipeline.core.job import LANES, Job
from pipeline.core.record import Headers, Position, Record
from pipeline.core.trace import Trace
from tests.core.strategies import (
    KNOWN,
    few,
    hostile_headers,
    jobs,
    positions,
    printable,
    texts,
    timestamps,
    traces,
    unknown_headers,
)


# ------------------------------------------------------------------------------------------------ as text
def test_the_last_occurrence_wins() -> None:
    """Duplicates are legal in Kafka; the last one counts, also where it is unreadable and thus absent."""
    assert {"a": "2"} == h.texts([("a", b"1"), ("a", b"2")])
    assert {} == h.texts([("a", b"1"), ("a", None)])
    assert {"a": "2"} == h.texts([("a", b"\xff"), ("a", b"2")])


@pytest.mark.parametrize("value", [None, b"\xff", "é".encode(), b"a\n", b"\n", b"a\tb", b"\x00", b"\x7f", b"x" * 4097])
def test_what_is_no_printable_ascii_is_absent(value: bytes | None) -> None:
    """Null, non-ASCII, control characters (a line's end, too) and oversized values are not read."""
    assert {} == h.texts([("ce_id", value)])


def test_sizes_are_capped() -> None:
    """4,096 bytes are read of any header, 8,192 of baggage, and not one more."""
    assert {"a": "x" * 4096, "baggage": "x" * 8192} == h.texts([("a", b"x" * 4096), ("baggage", b"x" * 8192)])
    assert {} == h.texts([("a", b"x" * 4097), ("baggage", b"x" * 8193)])


@given(hostile_headers)
def test_reading_never_raises(headers: Headers) -> None:
    """Whatever the bytes: text is printable ASCII, counts are in range, and every reader has an answer."""
    read = h.texts(headers)
    assert all(re.fullmatch(r"[ -~]*", text) for text in read.values())
    tries = h.tries(read)
    assert all(0 <= number <= h.MAX_COUNT for number in (tries.attempts, tries.deferrals, tries.timeouts))
    assert "id" == h.read_job(read, "id").id


# ------------------------------------------------------------------------------------------------ numbers, lanes
@pytest.mark.parametrize(
    "text, number",
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("000", 0),
        ("7", 7),
        (f"{'0' * 30}7", 7),
        ("1000001", 1_000_000),
        ("9" * 4096, 1_000_000),
        ("-1", 0),
        ("1.5", 0),
        ("+1", 0),
        (" 1", 0),
        ("1_0", 0),
        ("²", 0),
        ("٣", 0),
        ("1\n", 0),
    ],
)
def test_a_count_is_a_plain_number_within_reason(text: str | None, number: int) -> None:
    """What is no plain ASCII number counts as 0; what is too high counts as the highest."""
    assert number == h.count(text)


@given(texts | st.integers().map(str))
def test_any_text_is_a_count(text: str) -> None:
    """No text makes a count raise or leave its range."""
    assert 0 <= h.count(text, 99) <= 99


@pytest.mark.parametrize("text, deadline", [("5", 5), ("0", 0), ("9" * 30, h.MAX_TIME), (None, None), ("", None)])
def test_a_deadline_is_a_number_of_milliseconds(text: str | None, deadline: int | None) -> None:
    """A plain number is read, capped at the latest time; nothing is no deadline."""
    assert deadline == h.deadline(text)


@pytest.mark.parametrize("text", ["soon", "-1", "2026-01-01T00:00:00Z", "1e12", "nan"])
def test_a_deadline_that_cannot_be_read_is_none(text: str) -> None:
    """A slip in the header must not make the job late: reading it as 0 would end the job at once."""
    assert h.deadline(text) is None
    assert not h.read_job({h.DEADLINE: text}, "id").late(1.0)


@given(texts)
def test_only_the_three_lanes_are_lanes(text: str) -> None:
    """Any other text names no lane."""
    assert list(LANES) == [h.lane(lane) for lane in LANES]
    assert h.lane(text) is None or text in LANES


# ------------------------------------------------------------------------------------------------ origins
HERE = Record("here", 1, 2, None, b"", (), 3)


@given(st.builds(Origin, positions, timestamps))
def test_an_origin_is_read_as_it_is_spelt(origin: Origin) -> None:
    """`topic/partition/offset/timestamp` of any legal topic, with or without a timestamp, and only on copies."""
    read = {h.ORIGINAL: str(origin)}
    assert origin == h.origin(HERE, read, copy=True)
    assert Origin(HERE.position, 3) == h.origin(HERE, read, copy=False)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "t",
            "t/0/1",
            "t/0/1/2/3",
            "t/--1/2/3",
            "t/-1/2/3",
            "t/0/-1/3",
            "t/0/1/-2",
            "t/0/1/",
            "/0/1/2",
            "t/a/b/c",
        ),
        *("t/²/1/2", "t//1/2", f"t/0/{'9' * 20}/1", "a b/0/1/2", f"{'t' * 250}/0/1/2"),
    ],
)
def test_a_copy_with_an_unreadable_origin_counts_as_an_original(text: str) -> None:
    """A lost or mangled way back never raises; the record then first stood where it stands."""
    assert Origin(Position("here", 1, 2), 3) == h.origin(HERE, {h.ORIGINAL: text}, copy=True)


# ------------------------------------------------------------------------------------------------ job and trace
@given(jobs)
def test_what_we_write_about_a_job_we_read(job: Job) -> None:
    """Every job-scoped fact survives its headers, whatever text it holds; the id is `ce_subject`'s business."""
    assert job == h.read_job(h.texts(h.job_headers(job)), job.id)


@few
@given(jobs)
def test_every_job_header_is_written_at_most_once(job: Job) -> None:
    """Exactly one of each, readable by ourselves, and nothing for what is not known."""
    written = h.job_headers(job)
    assert len(written) == len(dict(written)) == len(h.texts(written))
    assert (job.lane is None) == (h.LANE not in dict(written))


@pytest.mark.parametrize("text", ["x" * 9000, "é" * 9000, "日" * 9000])
def test_a_name_too_long_to_be_read_is_cut_not_lost(text: str) -> None:
    """Else the tenant of a refused request would come out as the default tenant, who is somebody else."""
    job = Job("id", tenant=text, type=text, conversation=text, catalog=text)
    read = h.read_job(h.texts(h.job_headers(job)), "id")
    for name in (read.tenant, read.type, read.conversation, read.catalog):
        assert 400 < len(name) < 9000
        assert text.startswith(name)


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "1e3", "", "1.", "x", "1" * 13])
def test_a_cost_that_cannot_be_read_is_nothing(text: str) -> None:
    """A sum of money is plain digits; anything else adds nothing to what a job has cost."""
    assert 0.0 == h.read_job({h.COST: text}, "id").cost_usd


@few
@given(traces)
def test_a_span_has_exactly_one_of_each_header(trace: Trace) -> None:
    """`traceparent` always, `tracestate` and `baggage` where they say something."""
    read = h.texts(h.trace_headers(trace))
    expected = {h.TRACEPARENT: trace.traceparent, h.TRACESTATE: trace.state, h.BAGGAGE: trace.baggage}
    assert {name: text for name, text in expected.items() if text} == read


# ------------------------------------------------------------------------------------------------ unknown ones
@few
@given(unknown_headers)
def test_unknown_headers_travel_byte_for_byte(headers: Headers) -> None:
    """Order, duplicates, nulls and bytes are kept."""
    assert headers == h.carried(headers)


@few
@given(hostile_headers)
def test_no_header_that_means_something_to_us_is_carried(headers: Headers) -> None:
    """What we write ourselves is never carried beside it; carrying twice carries the same."""
    kept = h.carried(headers)
    assert not {name for name, _ in kept} & set(KNOWN)
    assert kept == h.carried(kept)


@few
@given(st.lists(st.tuples(texts, st.none() | st.binary(max_size=9000)), max_size=8).map(tuple))
def test_what_is_carried_is_capped(headers: Headers) -> None:
    """First come, first carried, until the next would not fit; names and framing count too, in bytes."""
    kept = h.carried(headers)
    assert h.MAX_CARRIED >= sum(len(name.encode()) + len(value or b"") for name, value in kept)
    wanted = tuple(header for header in headers if h.carried((header,)) or len(header[1] or b"") > 8000)
    assert wanted[: len(kept)] == kept


def test_nothing_is_carried_behind_what_did_not_fit() -> None:
    """What is carried is a beginning of what came: a later header does not overtake one that was too large."""
    small, large = ("a", b"1"), ("b", b"x" * h.MAX_CARRIED)
    assert (small,) == h.carried((small, large, ("c", b"2")))


def test_empty_headers_are_not_free() -> None:
    """A record full of headers without name and value does not grow every child."""
    assert h.MAX_CARRIED // 2 == len(h.carried((("", None),) * 100_000))


def test_a_header_that_exactly_fits_is_carried() -> None:
    """The cap is a number of bytes of name, value and framing; one byte more is too much."""
    fits = ("é", b"x" * (h.MAX_CARRIED - 4))
    assert (fits,) == h.carried((fits,))
    assert () == h.carried((("é", b"x" * (h.MAX_CARRIED - 3)),))


@few
@given(hostile_headers, st.sampled_from(KNOWN))
def test_dropping_by_name_keeps_the_rest(headers: Headers, name: str) -> None:
    """Order, duplicates and bytes of the others stay."""
    assert tuple(header for header in headers if header[0] != name) == h.without(headers, name.__eq__)


# ------------------------------------------------------------------------------------------------ quoting
def test_a_foreign_topic_tells_only_what_everybody_may() -> None:
    """Tracing and what we do not know stay; what looks like ours goes, but for the bookkeeping of our own copy."""
    theirs: Headers = (
        (h.TRACEPARENT, b"00-1-2-01"),
        ("__debezium.newkey", b"{}"),
        ("id", None),
        (h.CONTENT_TYPE, b"x"),
    )
    bookkeeping: Headers = ((h.ATTEMPTS, b"1"), (h.ORIGINAL, b"db.t/0/1/2"), (h.NOT_BEFORE, b"5"))
    forged: Headers = ((h.TENANT, b"acme"), (h.CE_ID, b"1"), (h.DEADLINE, b"1"), (f"{h.DEAD}stage", b"s"))
    every = (*forged, *theirs, *bookkeeping)
    assert h.public(every, copy=False) == theirs
    assert h.public(every, copy=True) == (*theirs, *bookkeeping)


@given(texts)
def test_any_text_survives_quoting(text: str) -> None:
    """Quoted text is printable ASCII and reads back as it was."""
    assert re.fullmatch(r"[ -~]*", h.quoted(text))
    assert text == h.unquoted(h.quoted(text))


@given(printable)
def test_printable_ascii_is_its_own_quotation(text: str) -> None:
    """Only the percent sign is escaped in plain text, so headers stay readable to people."""
    assert text.replace("%", "%25") == h.quoted(text)


@given(texts, st.integers(0, 60))
def test_a_limit_cuts_between_characters(text: str, limit: int) -> None:
    """The result is no longer than the limit, reads as a beginning of the text, and no further character would fit."""
    cut = h.quoted(text, limit)
    kept = h.unquoted(cut)
    assert len(cut) <= limit
    assert text[: len(kept)] == kept
    assert len(kept) == len(text) or len(h.quoted(text[: len(kept) + 1])) > limit


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "100% sure", "%%"])
def test_a_malformed_escape_stays_as_it_is(text: str) -> None:
    """Text that was never quoted is read as it stands."""
    assert text == h.unquoted(text)


@given(printable)
def test_unquoting_never_raises(text: str) -> None:
    """Bytes that are no UTF-8 come out as replacement characters; nothing comes out of nothing."""
    assert isinstance(h.unquoted(text), str)
    assert ("\ufffd", "") == (h.unquoted("%FF"), h.unquoted(None))


def test_text_that_is_no_text_is_still_spelt() -> None:
    """A lone surrogate, which UTF-8 does not have, becomes a question mark."""
    assert "a?b" == h.unquoted(h.quoted("a\ud800b"))


def test_bookkeeping_is_read_together() -> None:
    """The three counts come from their own headers."""
    read = {h.ATTEMPTS: "1", h.DEFERRALS: "2", h.TIMEOUTS: "3"}
    assert Tries(1, 2, 3) == h.tries(read)
